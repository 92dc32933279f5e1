"""`orchestra.jobs.submit|get|cancel|list` over NATS.

`submit` takes the body of `POST /v1/jobs` and the header `Idempotency-Key`; `get` and `cancel` take
`{"id": …}`, `list` takes `{"limit": …, "before": …}`. Each answers what the HTTP route does, to the caller
that the header `Orchestra-Caller` names. Who names none, as the command line does, sees everybody's jobs:
NATS's own permissions say who may.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field
from pydantic_core import to_json

from actors.bus.bus import Message
from actors.gateway.job_submission import JobsApi
from actors.gateway.jobs_routes import DEFAULT_LIMIT
from actors.openai_api.encoder import error_json
from actors.runtime.actor import Actor
from actors.runtime.envelope import Envelope, current_envelope
from actors.runtime.service import Endpoint, decode_model
from actors.runtime.system import ActorRef
from actors.telemetry.telemetry import traceparent
from orchestration.errors import PayloadTooLarge
from orchestration.messages import Wire

QUEUE = "orchestra"
KEY = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class SubmitJob:
    """`raw` is the body as it came."""

    raw: bytes
    key: str


class GetJob(Wire):
    id: str


class CancelJob(Wire):
    id: str


class ListJobs(Wire):
    limit: int = Field(default=DEFAULT_LIMIT, ge=1)
    before: int = Field(default=0, ge=0)


class JobsService(Actor):
    """Answers with JSON; jobs at once are bounded by `concurrency`, those that wait by the mailbox."""

    concurrency = 256
    mailbox_size = 4_096

    def __init__(self, api: JobsApi) -> None:
        self.api = api

    async def on_submit(self, message: SubmitJob) -> bytes:
        came = current_envelope.get()
        caller = self.api.gateway.authenticator.of_nats(came.caller)
        envelope = Envelope(trace=traceparent(came.trace), caller=caller)
        with self.api.gateway.storage.explain_errors():
            job, _ = await self.api.submit(message.raw, message.key, envelope)
        return to_json(job)

    async def on_get(self, message: GetJob) -> bytes:
        return to_json(await self.api.service.get(message.id, self._viewer()))

    async def on_cancel(self, message: CancelJob) -> bytes:
        with self.api.gateway.storage.explain_errors():
            return to_json(await self.api.service.cancel(message.id, self._viewer()))

    async def on_list(self, message: ListJobs) -> bytes:
        page = self.api.service.list(limit=message.limit, before=message.before, viewer=self._viewer())
        return to_json(await page)

    def _viewer(self) -> str | None:
        said = current_envelope.get().caller
        return self.api.viewer(self.api.gateway.authenticator.of_nats(said)) if said else None


def jobs_endpoints(ref: ActorRef, max_body_bytes: int) -> list[Endpoint]:
    """Shared by all gateways."""

    def submission(message: Message) -> SubmitJob:
        if len(message.data) > max_body_bytes:
            raise PayloadTooLarge.of(len(message.data), max_body_bytes)
        return SubmitJob(message.data, message.header(KEY))

    decoders = {
        "submit": submission,
        "get": decode_model(GetJob),
        "cancel": decode_model(CancelJob),
        "list": decode_model(ListJobs),
    }
    return [
        Endpoint(
            name=f"jobs-{verb}",
            subject=f"orchestra.jobs.{verb}",
            ref=ref,
            decode=decode,
            encode=bytes,
            encode_error=error_json,
            queue=QUEUE,
            streams=False,
        )
        for verb, decode in decoders.items()
    ]
