"""What is kept of a job: its record, which changes, and its result, which is written once."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from secrets import token_hex
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, TypeAdapter

from orchestration.errors import ErrorBody
from orchestration.messages import Ended, Generation, Priority, Run, TokenLogprob, Wire

PREFIX = "job."
RETRY_HEADER = "Orchestra-Retry"
MESSAGE_ID = "Nats-Msg-Id"
"""JetStream stores a message with an id that it has seen within two minutes no second time."""
_ID = re.compile(r"job\.[0-9a-f]{24}")


def _type_of_work(value: Any) -> str:
    is_run = "pattern" in value if isinstance(value, dict) else isinstance(value, Run)
    return "run" if is_run else "generation"


def _type_of_message(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "job" if kind == "job" else "run"


class QueuedJob(Wire):
    """A job in the queue of runs: the work of a chat body that no caller waits for.

    The work's id is the job's id. A `Generation` is sent to the nodes as it is, a `Run` is performed.
    """

    type: Literal["job"]
    work: Annotated[
        Annotated[Generation, Tag("generation")] | Annotated[Run, Tag("run")], Discriminator(_type_of_work)
    ]


QUEUED: TypeAdapter[Run | QueuedJob] = TypeAdapter(
    Annotated[Annotated[Run, Tag("run")] | Annotated[QueuedJob, Tag("job")], Discriminator(_type_of_message)]
)
"""Decodes a message of the queue of runs: a run whose caller waits, or a job."""


class JobStatus(StrEnum):
    """`dead` means given up: `orchestra jobs dead` tells why, and can try again."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def final(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


class JobRecord(Wire):
    """A job as the bucket `jobs` has it. Times are Unix seconds. `pattern` is '' for a job of a model.

    `owner` is the namespace of who submitted it, '' where no caller has a key. `queued` is set once its
    message is stored in the queue; `retry_number` counts retries of a dead job, and names which of its
    results counts. `attempts` counts those of this retry. `notes` are what the gateway told of the body.
    """

    id: str
    owner: str = ""
    status: JobStatus = JobStatus.QUEUED
    queued: bool = False
    retry_number: int = 0
    attempts: int = 0
    model: str
    pattern: str
    priority: Priority
    webhook: str = ""
    fingerprint: str
    submitted_at: float
    changed_at: float
    last_error: ErrorBody | None = None
    notes: tuple[str, ...] = ()
    trace_id: str = ""

    @property
    def message_id(self) -> str:
        """Of its message in the queue, for this round."""
        return f"{self.id}#{self.retry_number}"


class JobResult(Wire):
    """The one end of a round of a job. Whoever writes it first is right."""

    id: str
    retry_number: int = 0
    status: JobStatus
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = None
    reasoning: str = ""
    ended: Ended
    finished_at: float


def new_job_id(key: str = "") -> str:
    """An id as good as random, or the one that belongs to an idempotency key.

    Two subject tokens, so that it is the id of the job's run and of its stream too.
    """
    token = hashlib.sha256(f"key:{key}".encode()).hexdigest()[:24] if key else token_hex(12)
    return PREFIX + token


def is_job_id(text: str) -> bool:
    """Whether `text` has the form of a job's id, so that it can be a key of the bucket."""
    return _ID.fullmatch(text) is not None


def result_key(job_id: str, retry_number: int) -> str:
    return f"{job_id}#{retry_number}"


def event_subject(job_id: str) -> str:
    """Where changes of a job's status are told: `events.job.<…>`."""
    return f"events.{job_id}"
