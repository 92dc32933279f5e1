"""Dead letters: messages that were given up, stored with the reason until a person retries or drops them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from actors.bus.bus import Bus, Message
from actors.bus.jetstream import MESSAGE_ID_HEADER, Delivery, delete, enqueue
from actors.bus.subjects import encode_token, is_work_id
from actors.jobs.errors import NoSuchJob
from actors.jobs.metrics import DEAD_LETTERS
from actors.jobs.records import RETRY_HEADER, JobRecord, JobStatus
from actors.jobs.store import JobStore
from actors.jobs.stream_pages import StoredMessage, latest_messages, message_at
from actors.runtime.envelope import TRACE
from actors.streams.client import ID_HEADER
from actors.telemetry.tracing import recorded_trace_id
from orchestration.errors import InvalidRequest, OrchestraError
from orchestration.messages import ErrorBody

log = logging.getLogger(__name__)

STREAM = "DEAD"
SUBJECT_HEADER = "Orchestra-Dead-Subject"
"""Subject of the message that was given up."""
REASON_HEADER = "Orchestra-Dead-Reason"
"""Reason why the message was given up, at most 500 characters."""
ERROR_HEADER = "Orchestra-Dead-Error"
"""Last error, as JSON."""
ATTEMPTS_HEADER = "Orchestra-Dead-Attempts"
"""Number of attempts."""
KINDS = ("runs", "generations", "webhooks", "logs")
for _kind in KINDS:
    DEAD_LETTERS.labels(_kind)  # 0 is exported too, so that an alert sees the first one


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter. `number` is its sequence in the stream, which identifies it. `dead_at` is when the
    server stored it."""

    number: int
    kind: str
    id: str
    subject: str
    reason: str
    attempts: int
    error: ErrorBody | None
    trace_id: str
    dead_at: str
    message: Message

    @classmethod
    def of(cls, stored: StoredMessage) -> DeadLetter:
        message = stored.message
        try:
            error = ErrorBody.model_validate_json(message.header(ERROR_HEADER))
        except ValidationError:
            error = None
        attempts = message.header(ATTEMPTS_HEADER, "0")
        return cls(
            number=stored.sequence,
            kind=stored.subject.split(".")[1] if "." in stored.subject else "",
            id=message.header(ID_HEADER),
            subject=message.header(SUBJECT_HEADER),
            reason=message.header(REASON_HEADER),
            attempts=int(attempts) if attempts.isdecimal() and len(attempts) < 10 else 0,
            error=error,
            trace_id=recorded_trace_id(message.header(TRACE)),
            dead_at=message.header("Nats-Time-Stamp"),
            message=message,
        )

    def to_json(self, *, body: bool) -> dict[str, Any]:
        """The letter as JSON, with the body of the message if `body` is true."""
        fields: dict[str, Any] = {
            "number": self.number,
            "kind": self.kind,
            "id": self.id,
            "reason": self.reason,
            "attempts": self.attempts,
            "error": None if self.error is None else self.error.model_dump(exclude_none=True),
            "trace_id": self.trace_id,
            "dead_at": self.dead_at,
            "subject": self.subject,
        }
        if body:
            try:
                fields["body"] = from_json(self.message.data)
            except ValueError:
                fields["body"] = self.message.data.decode(errors="replace")
        return fields


async def dead_letter(
    bus: Bus, message: Message, *, reason: str, attempts: int, error: ErrorBody | None
) -> None:
    """Store a queue's message as a dead letter. The caller then acknowledges it.

    Two calls within two minutes store it once. Raises `BusUnavailable`.
    """
    kind = message.subject.split(".", 1)[0]
    work_id, retry_number = message.header(ID_HEADER), message.header(RETRY_HEADER, "0")
    if not is_work_id(work_id):
        work_id = "unknown"
    headers = {
        ID_HEADER: work_id,
        RETRY_HEADER: retry_number,
        SUBJECT_HEADER: message.subject,
        REASON_HEADER: " ".join(reason.split())[:500],
        ATTEMPTS_HEADER: str(attempts),
        MESSAGE_ID_HEADER: f"dead-{kind}-{work_id}#{retry_number}",
    }
    if error is not None:
        headers[ERROR_HEADER] = error.model_dump_json(exclude_none=True)
    if message.header(TRACE):
        headers[TRACE] = message.header(TRACE)
    await enqueue(bus, f"dead.{kind}.{encode_token(work_id)}", message.data, headers)
    DEAD_LETTERS.labels(kind if kind in KINDS else "other").inc()
    log.warning("moved %s of %s to the dead letters: %s", work_id, message.subject, reason)


async def dead_letter_delivery(delivery: Delivery, error: OrchestraError) -> None:
    """Store a message as a dead letter that was delivered several times and never settled."""
    attempts = delivery.attempt - 1
    await dead_letter(delivery.bus, delivery.message, reason=error.message, attempts=attempts, error=None)


class DeadLetterStore:
    """Lists, shows, drops and retries dead letters."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.store = JobStore(bus)

    async def list(self, *, limit: int, before: int = 0) -> tuple[list[DeadLetter], int]:
        """A page of letters, the latest first, and the `before` of the next page, 0 at the end."""
        page, more = await latest_messages(self.bus, STREAM, limit=limit, before=before)
        return [DeadLetter.of(each) for each in page], more

    async def show(self, number: int) -> DeadLetter:
        """Raises `NoSuchJob`."""
        stored = await message_at(self.bus, STREAM, number)
        if stored is None:
            raise NoSuchJob(f"no dead letter {number}")
        return DeadLetter.of(stored)

    async def drop(self, number: int) -> None:
        """Raises `NoSuchJob`."""
        if not await delete(self.bus, STREAM, number):
            raise NoSuchJob(f"no dead letter {number}")

    async def retry(self, number: int) -> str:
        """Queue the message again with all its attempts, drop the letter, and return the id of its work.

        A job gets a new retry number, so that a late worker of an earlier attempt cannot complete it. Raises
        `NoSuchJob`, `InvalidRequest` for a letter that is not a job's, `QueueFull`.
        """
        letter = await self.show(number)
        if letter.kind == "runs" and letter.message.header(RETRY_HEADER):
            record = await self.store.update(letter.id, self._next_retry(letter))
            if record is None:
                raise NoSuchJob.of(letter.id)
            retry_number, message_id = record.retry_number, record.message_id
        elif letter.kind in ("webhooks", "logs"):
            retry_number = int(letter.message.header(RETRY_HEADER, "0"))
            message_id = f"{letter.id}#{retry_number}.again.{number}"
        else:
            raise InvalidRequest(
                f"dead letter {number} is not a job's: its caller got the error already; drop it"
            )
        headers = {ID_HEADER: letter.id, RETRY_HEADER: str(retry_number), MESSAGE_ID_HEADER: message_id}
        if letter.message.header(TRACE):
            headers[TRACE] = letter.message.header(TRACE)
        await enqueue(self.bus, letter.subject, letter.message.data, headers)
        await delete(self.bus, STREAM, number)
        return letter.id

    @staticmethod
    def _next_retry(letter: DeadLetter) -> Any:
        retry_number = int(letter.message.header(RETRY_HEADER, "0"))

        def requeue(record: JobRecord) -> JobRecord | None:
            if record.retry_number > retry_number:  # an earlier call for this letter got this far
                return None
            if not record.status.final:
                raise InvalidRequest(f"{record.id} is {record.status.value}, not dead")
            fresh = {
                "status": JobStatus.QUEUED,
                "retry_number": retry_number + 1,
                "attempts": 0,
                "last_error": None,
            }
            return record.model_copy(update=fresh)

        return requeue
