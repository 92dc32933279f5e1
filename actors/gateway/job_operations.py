"""What clients can do with jobs, over HTTP and NATS."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from pydantic_core import to_json

from actors.gateway.job_submission import JobsApi
from actors.gateway.operation import CallContext, Reply
from actors.runtime.envelope import Envelope
from orchestration.messages import Wire

IDEMPOTENCY_KEY = "Idempotency-Key"
REPLAYED = (b"idempotent-replayed", b"true")


class JobId(Wire):
    id: str


class ListJobs(Wire):
    """`limit` jobs, the last changed first. `before` is `next` of the page before; 0 is the first page."""

    limit: int = Field(default=20, ge=1, le=2**53)
    before: int = Field(default=0, ge=0, le=2**53)


class JobOperations:
    """The handlers of the job operations."""

    def __init__(self, api: JobsApi) -> None:
        self.api = api

    async def submit(self, body: bytes, call: CallContext) -> Reply:
        """202 for a new job, 200 for one that its idempotency key names."""
        envelope = Envelope(trace=call.trace, caller=self._caller(call))
        job, new = await self.api.submit(body, call.header(IDEMPOTENCY_KEY), envelope)
        headers = (
            (b"location", f"/v1/jobs/{job['id']}".encode()),
            (b"x-orchestra-run", job["id"].encode()),
        )
        if new:
            return Reply(body=to_json(job), status=202, headers=headers)
        return Reply(body=to_json(job), headers=(*headers, REPLAYED))

    async def get(self, request: JobId, call: CallContext) -> Reply:
        return _reply(await self.api.service.get(request.id, self._viewer(call)))

    async def cancel(self, request: JobId, call: CallContext) -> Reply:
        return _reply(await self.api.service.cancel(request.id, self._viewer(call)))

    async def list(self, request: ListJobs, call: CallContext) -> Reply:
        viewer = self._viewer(call)
        return _reply(await self.api.service.list(limit=request.limit, before=request.before, viewer=viewer))

    def _caller(self, call: CallContext) -> str:
        """A job that is submitted without a caller belongs to `anonymous`."""
        return call.caller or self.api.gateway.authenticator.of_nats("")

    def _viewer(self, call: CallContext) -> str | None:
        return self.api.viewer(call.caller) if call.caller else None


def _reply(value: dict[str, Any]) -> Reply:
    return Reply(body=to_json(value))
