"""The job operations of a gateway. A job's body is admitted and converted as that of a chat."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import Field
from pydantic_core import to_json

from actors.gateway.bodies import ChatBody
from actors.gateway.gateway import Gateway
from actors.gateway.job_quota import JobQuota
from actors.gateway.operation import CallContext, Reply
from actors.gateway.requests import admit_chat, parse
from actors.gateway.token_reservation import TokenReservation
from actors.jobs.records import new_job_id
from actors.jobs.service import JobService, JobSubmission
from actors.jobs.settings import JobsSettings
from actors.net.public_addresses import check_url
from actors.runtime.envelope import Envelope
from orchestration.errors import InvalidRequest
from orchestration.messages import Priority, Wire

IDEMPOTENCY_KEY = "Idempotency-Key"
OnOperatorCancel = Callable[[str, str, CallContext], Awaitable[None]]
REPLAYED = (b"idempotent-replayed", b"true")
MAX_KEY_LENGTH = 255


class JobBody(ChatBody):
    """The body of a chat, with the priority `standard` (the default) or `batch`, and a webhook."""

    webhook: str | None = Field(default=None, max_length=2_048)
    """URL that is called when the job has ended, at most 2,048 characters. Needs `jobs.webhook.secret`."""

    @property
    def priority(self) -> Priority:
        """Raises `InvalidRequest` for interactive, which is for requests whose caller waits."""
        if self.orchestra is None or "priority" not in self.orchestra.model_fields_set:
            return Priority.STANDARD
        if self.orchestra.priority is Priority.INTERACTIVE:
            raise InvalidRequest("a job's priority is standard or batch", param="orchestra.priority")
        return self.orchestra.priority


class JobId(Wire):
    """The id of a job."""

    id: str
    """Id of the job."""


class ListJobs(Wire):
    """A page of the list of jobs, the last changed first."""

    limit: int = Field(default=20, ge=1, le=2**53)
    """Maximum jobs on the page, at most `jobs.max_listed`. Default: 20."""
    before: int = Field(default=0, ge=0, le=2**53)
    """`next` of the page before; 0: the first page."""


class JobsApi:
    """The handlers of the job operations."""

    def __init__(self, gateway: Gateway, settings: JobsSettings) -> None:
        self.gateway = gateway
        self.settings = settings
        self.service = JobService(gateway.bus, max_listed=settings.max_listed)
        self.quota = JobQuota(gateway.bus)
        self.on_operator_cancel: OnOperatorCancel | None = None
        """Awaited after a job was cancelled over NATS without a caller, with its id and its status before."""

    def update_settings(self, settings: JobsSettings) -> None:
        """Use other settings for requests from now on."""
        self.settings = settings
        self.service.max_listed = settings.max_listed

    def viewer(self, caller: str) -> str | None:
        """The namespace whose jobs `caller` sees; None, which is all, where callers have no keys."""
        authenticator = self.gateway.authenticator
        return authenticator.namespace(caller) if authenticator.named else None

    async def submit(self, body: bytes, call: CallContext) -> Reply:
        """202 for a new job, 200 for one that its idempotency key names.

        A job that is submitted without a caller belongs to `anonymous`. Raises what `_submit` raises.
        """
        caller = call.caller or self.gateway.authenticator.of_nats("")
        envelope = Envelope(trace=call.trace, caller=caller)
        job, is_new = await self._submit(body, call.header(IDEMPOTENCY_KEY), envelope)
        headers = (
            (b"location", f"/v1/jobs/{job['id']}".encode()),
            (b"x-orchestra-run", job["id"].encode()),
        )
        if is_new:
            return Reply(body=to_json(job), status=202, headers=headers)
        return Reply(body=to_json(job), headers=(*headers, REPLAYED))

    async def get(self, request: JobId, call: CallContext) -> Reply:
        return Reply(body=to_json(await self.service.get(request.id, self._viewer(call))))

    async def cancel(self, request: JobId, call: CallContext) -> Reply:
        """A cancel without a caller is one of an operator."""
        if call.caller or self.on_operator_cancel is None:
            return Reply(body=to_json(await self.service.cancel(request.id, self._viewer(call))))
        before = (await self.service.get(request.id))["status"]
        job = await self.service.cancel(request.id)
        if before != job["status"] and job["status"] == "cancelled":
            await self.on_operator_cancel(request.id, before, call)
        return Reply(body=to_json(job))

    async def list_jobs(self, request: ListJobs, call: CallContext) -> Reply:
        viewer = self._viewer(call)
        page = await self.service.list(limit=request.limit, before=request.before, viewer=viewer)
        return Reply(body=to_json(page))

    def _viewer(self, call: CallContext) -> str | None:
        return self.viewer(call.caller) if call.caller else None

    async def _submit(self, raw: bytes, key: str, envelope: Envelope) -> tuple[dict[str, Any], bool]:
        """Return the accepted job, and whether it is new. `key` is the Idempotency-Key, or ''.

        Reserves the tokens that the job may use: see `JobQuota`. Raises `InvalidRequest`, `UnknownModel`,
        `NoNode`, `KeyReused`, `LimitExceeded`, `TooManyTokens`, `TooManyJobs`, `QueueFull`, `Unavailable`.
        """
        self.gateway.check_available()
        submission = self._submission(raw, key, envelope.caller)
        reservations: list[TokenReservation] = []
        is_new = False

        async def charge() -> None:
            reservations.append(await self.gateway.reserve_tokens(submission.work, envelope))
            await self.quota.hold(submission.work.id, reservations[0])  # before the job can end

        try:
            job, is_new = await self.service.submit(submission, envelope, charge)
        finally:
            if not is_new:
                for reservation in reservations:
                    self.quota.drop(submission.work.id, reservation)
        return job, is_new

    def _submission(self, raw: bytes, key: str, caller: str) -> JobSubmission:
        """The job that the body asks for. An idempotency key is its caller's own: the id depends on both."""
        if len(key) > MAX_KEY_LENGTH:
            raise InvalidRequest(
                f"{IDEMPOTENCY_KEY} has {len(key)} characters; the limit is {MAX_KEY_LENGTH}",
                param=IDEMPOTENCY_KEY,
            )
        body = parse(JobBody, raw, self.gateway.resolver)
        if body.stream:
            raise InvalidRequest("stream: a job cannot be streamed; fetch it by its id", param="stream")
        webhook = self._webhook(body.webhook)
        request = admit_chat(body, new_job_id(f"{caller} {key}" if key else ""), self.gateway.resolver)
        if request.others:
            raise InvalidRequest("n: a job has one answer; submit several jobs", param="n")
        work = request.work.model_dump_json(exclude={"id"}, exclude_defaults=True)
        fingerprint = hashlib.sha256(f"{body.model}\n{webhook}\n{work}".encode()).hexdigest()
        return JobSubmission(
            work=request.work,
            model=body.model,
            fingerprint=fingerprint,
            webhook=webhook,
            owner=self.viewer(caller) or "",
            max_unfinished=self.gateway.settings.limits_of(caller).unfinished_jobs,
            notes=request.notes,
            keyed=bool(key),
        )

    def _webhook(self, url: str | None) -> str:
        if not url:
            return ""
        hooks = self.settings.webhook
        if not hooks.secret:
            raise InvalidRequest(
                "webhook: set jobs.webhook.secret first, which signs the calls", param="webhook"
            )
        return str(check_url(url, private=hooks.private_addresses))
