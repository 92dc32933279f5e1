"""Jobs of all callers, and dead letters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field
from pydantic_core import to_json

from actors.admin.audit import Audit, Changed
from actors.admin.requests import MAX_PAGE, ChangeRequest
from actors.bus.bus import Bus
from actors.config.cluster_settings import MAX_REASON
from actors.gateway.jobs_api import OnOperatorCancel
from actors.gateway.operation import CallContext, Reply
from actors.jobs.dead_letters import DeadLetterStore
from actors.jobs.service import JobService
from actors.runtime.envelope import OPERATOR, REASON
from orchestration.messages import Wire

MAX_OPERATOR = 64
"""Maximum length of an operator's name in a record."""


class NewestPage(Wire):
    """A page of a list, the latest entries first."""

    limit: int = Field(default=100, ge=1, le=MAX_PAGE)
    """Maximum entries on the page, 1 to 1000. Default: 100."""
    before: int = Field(default=0, ge=0, le=2**53)
    """`next` of the page before; 0: the first page."""


class JobName(Wire):
    """The id of a job."""

    id: str = Field(min_length=1, max_length=128)
    """Id of the job."""


class LetterNumber(Wire):
    """The number of a dead letter."""

    number: int = Field(ge=1, le=2**53)
    """Number of the dead letter."""


class ChangeLetter(ChangeRequest):
    """A change of one dead letter."""

    number: int = Field(ge=1, le=2**53)
    """Number of the dead letter."""


def job_cancels(audit: Audit) -> OnOperatorCancel:
    """Records jobs that an operator cancels by `orchestra.jobs.cancel`, outside the table of operations."""

    async def record(job: str, before: str, call: CallContext) -> None:
        who = call.header(OPERATOR)[:MAX_OPERATOR]
        made = Changed(
            target=f"job {job}",
            before={"state": before},
            after={"state": "cancelled"},
            body={},
            about={"run": job},
        )
        await audit.record("jobs.cancel", made, replace(call, caller=who), call.header(REASON)[:MAX_REASON])

    return record


class JobsAdmin:
    """The handlers of the operations on jobs and dead letters."""

    def __init__(self, bus: Bus) -> None:
        self.service = JobService(bus, max_listed=MAX_PAGE)
        self.letters = DeadLetterStore(bus)

    async def list_jobs(self, request: NewestPage, call: CallContext) -> Reply:
        return Reply(body=to_json(await self.service.list(limit=request.limit, before=request.before)))

    async def get(self, request: JobName, call: CallContext) -> Reply:
        return Reply(body=to_json(await self.service.get(request.id)))

    async def list_letters(self, request: NewestPage, call: CallContext) -> Reply:
        letters, more = await self.letters.list(limit=request.limit, before=request.before)
        rows: list[dict[str, Any]] = [letter.to_json(body=False) for letter in letters]
        return Reply(body=to_json({"object": "list", "data": rows, "next": more}))

    async def show_letter(self, request: LetterNumber, call: CallContext) -> Reply:
        """With the work itself, which has the prompt."""
        return Reply(body=to_json((await self.letters.show(request.number)).to_json(body=True)))

    async def retry(self, request: ChangeLetter, call: CallContext) -> Changed:
        """Queue a dead letter again with all its attempts. Raises `NoSuchJob`, also when it was retried."""
        letter = await self.letters.show(request.number)
        work_id = await self.letters.retry(request.number)
        return Changed(
            target=f"dead letter {request.number}",
            before={"reason": letter.reason, "attempts": letter.attempts},
            after={"queued": work_id},
            body={"number": request.number, "id": work_id, "state": "queued"},
            about={"run": work_id},
        )

    async def delete(self, request: ChangeLetter, call: CallContext) -> Changed:
        """Delete a dead letter for good. Raises `NoSuchJob`."""
        letter = await self.letters.show(request.number)
        await self.letters.drop(request.number)
        return Changed(
            target=f"dead letter {request.number}",
            before={"reason": letter.reason, "attempts": letter.attempts, "id": letter.id},
            after=None,
            body={"number": request.number, "id": letter.id, "state": "deleted"},
            about={"run": letter.id},
        )
