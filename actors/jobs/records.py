"""Data of a job: its message in the queue, its record, which changes, and its result, written once."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from secrets import token_hex
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from orchestration.messages import End, ErrorBody, Priority, Run, TokenLogprob, Wire, Work
from orchestration.wire import tag

PREFIX = "job."
RETRY_HEADER = "Orchestra-Retry"
"""Number of times that a dead job was put back into the queue, from 0."""
_ID = re.compile(r"job\.[0-9a-f]{24}")


class QueuedJob(Wire):
    """A job in the queue of runs: work whose answer is stored, because no caller waits for it.

    The work is what the same body of a chat asks for, and its id is the job's id.
    """

    kind: Literal["job"] = tag("job")
    work: Work


_QUEUE_MESSAGE: TypeAdapter[Run | QueuedJob] = TypeAdapter(
    Annotated[Run | QueuedJob, Field(discriminator="kind")]
)


def decode_queue_message(data: bytes) -> Run | QueuedJob:
    """Decode a message of the queue of runs: a run whose caller waits, or a job. Raises `ValidationError`."""
    return _QUEUE_MESSAGE.validate_json(data)


class JobStatus(StrEnum):
    """Status of a job. `dead` means given up: see `orchestra jobs dead`, which can also retry it."""

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
    """A job as the bucket `jobs` stores it. Times are Unix seconds.

    `owner` is the namespace of the submitter, '' where callers have no keys. `queued` is true once the job's
    message is in the queue. `retry_number` counts retries of a dead job: the result with this number counts,
    and `attempts` counts the attempts since the last retry. `pattern` is '' for a job of a model. `notes` are
    the gateway's notes on the body.
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
    interrupted: bool = False
    """Whether the attempt before the present one was lost with its coordinator."""

    @property
    def message_id(self) -> str:
        """The `Nats-Msg-Id` of its message in the queue; each retry has another."""
        return f"{self.id}#{self.retry_number}"


class JobResult(Wire):
    """How a retry of a job ended. The first result that is written counts."""

    id: str
    retry_number: int = 0
    status: JobStatus
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = None
    reasoning: str = ""
    ended: End
    finished_at: float


def new_job_id(key: str = "") -> str:
    """A random id, or the id that belongs to an idempotency key.

    It has two subject tokens, as the ids of runs and streams have.
    """
    token = hashlib.sha256(f"key:{key}".encode()).hexdigest()[:24] if key else token_hex(12)
    return PREFIX + token


def is_job_id(text: str) -> bool:
    """Whether `text` has the form of a job's id. Other texts cannot be keys of the bucket."""
    return _ID.fullmatch(text) is not None


def result_key(job_id: str, retry_number: int) -> str:
    return f"{job_id}#{retry_number}"


def event_subject(job_id: str) -> str:
    """The subject on which the job's status is published: `events.job.<…>`."""
    return f"events.{job_id}"
