"""What both faces of jobs share: from the body of a submission to the order at the desk."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import Field

from actors.gateway.bodies import ChatBody
from actors.gateway.gateway import Gateway
from actors.gateway.job_quota import JobQuota
from actors.gateway.requests import asked_chat, parse
from actors.gateway.token_reservation import Meter
from actors.jobs.records import new_job_id
from actors.jobs.service import JobService, JobSubmission
from actors.jobs.settings import JobsSettings
from actors.net.public_addresses import check_url
from actors.runtime.envelope import Envelope
from orchestration.errors import InvalidRequest, Unavailable
from orchestration.messages import Generation, Priority, Run

MAX_KEY = 255


class JobBody(ChatBody):
    """`POST /v1/jobs`: the body of a chat, whose priority is standard unless it says batch."""

    webhook: str | None = Field(default=None, max_length=2_048)

    @property
    def job_priority(self) -> Priority:
        """Raises `InvalidRequest` for interactive, which no job is: nobody holds its stream."""
        said = self.orchestra is not None and "priority" in self.orchestra.model_fields_set
        if not said:
            return Priority.STANDARD
        if self.priority is Priority.INTERACTIVE:
            raise InvalidRequest("a job's priority is standard or batch", param="orchestra.priority")
        return self.priority


class JobsApi:
    """Every job is a run. A real model's is the same model call that a chat with this body would be."""

    def __init__(self, gateway: Gateway, settings: JobsSettings) -> None:
        self.gateway = gateway
        self.settings = settings
        self.service = JobService(gateway.bus, max_listed=settings.max_listed)
        self.quota = JobQuota(gateway.bus)

    def viewer(self, caller: str) -> str | None:
        """The namespace whose jobs `caller` sees; None, who sees all, where no caller has a key."""
        callers = self.gateway.callers
        return callers.namespace(caller) if callers.named else None

    async def submit(self, raw: bytes, key: str, envelope: Envelope) -> tuple[dict[str, Any], bool]:
        """The accepted job, and whether it is new. Raises `InvalidRequest`, `UnknownModel`, `NoNode`,
        `KeyReused`, `OverLimit`, `TooManyTokens`, `TooManyJobs`, `QueueFull`, `Unavailable`.

        What the job may take is charged now; `JobQuota` says what becomes of that.
        """
        if self.gateway.draining:
            raise Unavailable("the gateway is shutting down", retry_after_s=1)
        self.gateway.storage.check()
        submission = self._submission(raw, key, envelope.caller)
        charged: list[Meter] = []
        fresh = False

        async def charge() -> None:
            work = submission.run.generation or submission.run
            charged.append(await self.gateway.answers.meter(work, envelope))
            await self.quota.hold(submission.run.id, charged[0])  # before it can end

        try:
            job, fresh = await self.service.submit(submission, envelope, charge)
        finally:
            if not fresh:
                for meter in charged:
                    self.quota.drop(submission.run.id, meter)
        return job, fresh

    def _submission(self, raw: bytes, key: str, caller: str) -> JobSubmission:
        """A key names a job of its caller alone, or one could take it for another's."""
        if len(key) > MAX_KEY:
            raise InvalidRequest(
                f"an Idempotency-Key has up to {MAX_KEY} characters, not {len(key)}", param="Idempotency-Key"
            )
        body = parse(JobBody, raw, self.gateway.admission)
        if body.stream:
            raise InvalidRequest("a job is not streamed: fetch it by its id", param="stream")
        webhook = self._webhook(body.webhook)
        priority = body.job_priority
        asked = asked_chat(body, new_job_id(f"{caller} {key}" if key else ""), self.gateway.admission)
        if asked.others:
            raise InvalidRequest("n: a job has one answer; submit several jobs", param="n")
        run = _as_run(asked.work, priority)
        said = run.model_copy(update={"id": ""}).model_dump_json(exclude_defaults=True)
        fingerprint = hashlib.sha256(f"{body.model}\n{webhook}\n{said}".encode()).hexdigest()
        owner, max_unfinished = (
            self.viewer(caller) or "",
            self.gateway.settings.limits_of(caller).unfinished_jobs,
        )
        return JobSubmission(
            run=run,
            model=body.model,
            fingerprint=fingerprint,
            webhook=webhook,
            owner=owner,
            max_unfinished=max_unfinished,
            notes=asked.shape.notes,
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


def _as_run(work: Generation | Run, priority: Priority) -> Run:
    """A real model's call travels in a run as it is, but for its id, which whoever makes it gives it."""
    if isinstance(work, Run):
        return work.model_copy(update={"priority": priority})
    call = work.model_copy(update={"id": "", "priority": priority})
    return Run(
        id=work.id, pattern="single", messages=(), model=work.model, priority=priority, generation=call
    )
