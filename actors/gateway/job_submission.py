"""What both faces of jobs share: from the body of a submission to the submission at the desk."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import Field

from actors.gateway.bodies import ChatBody
from actors.gateway.gateway import Gateway
from actors.gateway.job_quota import JobQuota
from actors.gateway.requests import admit_chat, parse
from actors.gateway.token_reservation import TokenReservation
from actors.jobs.records import new_job_id
from actors.jobs.service import JobService, JobSubmission
from actors.jobs.settings import JobsSettings
from actors.net.public_addresses import check_url
from actors.runtime.envelope import Envelope
from orchestration.errors import InvalidRequest, Unavailable
from orchestration.messages import Priority

MAX_KEY = 255


class JobBody(ChatBody):
    """`POST /v1/jobs`: the body of a chat, with the priority `standard` (the default) or `batch`."""

    webhook: str | None = Field(default=None, max_length=2_048)

    @property
    def priority(self) -> Priority:
        """Raises `InvalidRequest` for interactive, which no job is: nobody holds its stream."""
        if self.orchestra is None or "priority" not in self.orchestra.model_fields_set:
            return Priority.STANDARD
        if self.orchestra.priority is Priority.INTERACTIVE:
            raise InvalidRequest("a job's priority is standard or batch", param="orchestra.priority")
        return self.orchestra.priority


class JobsApi:
    """Jobs are chat bodies: `asked_chat` converts both, and a job's work waits in a queue."""

    def __init__(self, gateway: Gateway, settings: JobsSettings) -> None:
        self.gateway = gateway
        self.settings = settings
        self.service = JobService(gateway.bus, max_listed=settings.max_listed)
        self.quota = JobQuota(gateway.bus)

    def viewer(self, caller: str) -> str | None:
        """The namespace whose jobs `caller` sees; None, who sees all, where no caller has a key."""
        authenticator = self.gateway.authenticator
        return authenticator.namespace(caller) if authenticator.named else None

    async def submit(self, raw: bytes, key: str, envelope: Envelope) -> tuple[dict[str, Any], bool]:
        """The accepted job, and whether it is new. Raises `InvalidRequest`, `UnknownModel`, `NoNode`,
        `KeyReused`, `OverLimit`, `TooManyTokens`, `TooManyJobs`, `QueueFull`, `Unavailable`.

        What the job may take is charged now; `JobQuota` says what becomes of that.
        """
        if self.gateway.draining:
            raise Unavailable("the gateway is shutting down", retry_after_s=1)
        self.gateway.storage.check()
        submission = self._submission(raw, key, envelope.caller)
        charged: list[TokenReservation] = []
        fresh = False

        async def charge() -> None:
            charged.append(await self.gateway.answers.meter(submission.work, envelope))
            await self.quota.hold(submission.work.id, charged[0])  # before it can end

        try:
            job, fresh = await self.service.submit(submission, envelope, charge)
        finally:
            if not fresh:
                for meter in charged:
                    self.quota.drop(submission.work.id, meter)
        return job, fresh

    def _submission(self, raw: bytes, key: str, caller: str) -> JobSubmission:
        """A key names a job of its caller alone, or one could take it for another's."""
        if len(key) > MAX_KEY:
            raise InvalidRequest(
                f"an Idempotency-Key has up to {MAX_KEY} characters, not {len(key)}", param="Idempotency-Key"
            )
        body = parse(JobBody, raw, self.gateway.resolver)
        if body.stream:
            raise InvalidRequest("a job is not streamed: fetch it by its id", param="stream")
        webhook = self._webhook(body.webhook)
        request = admit_chat(body, new_job_id(f"{caller} {key}" if key else ""), self.gateway.resolver)
        if request.others:
            raise InvalidRequest("n: a job has one answer; submit several jobs", param="n")
        said = request.work.model_dump_json(exclude={"id"}, exclude_defaults=True)
        fingerprint = hashlib.sha256(f"{body.model}\n{webhook}\n{said}".encode()).hexdigest()
        return JobSubmission(
            work=request.work,
            model=body.model,
            fingerprint=fingerprint,
            webhook=webhook,
            owner=self.viewer(caller) or "",
            max_unfinished=self.gateway.settings.limits_of(caller).unfinished_jobs,
            notes=request.encoder.notes,
            keyed=bool(key),
        )

    def _webhook(self, url: str | None) -> str:
        if not url:
            return ""
        hooks = self.settings.webhook
        if not hooks.secret:
            raise InvalidRequest(
                "webhooks need jobs.webhook.secret to be set: every call is signed", param="webhook"
            )
        return str(check_url(url, private=hooks.private_addresses))
