"""Settings of jobs. Use the same in every process: gateways accept jobs, coordinators perform them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.jobs.signing import key_of
from orchestration.hot import Hot
from orchestration.retries import RetryPolicy


class WebhookSettings(BaseModel):
    """Settings of webhooks, which report the end of a job to a URL that its submitter gave."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: str = Field(default="", repr=False)
    """The key that signs every call (HMAC-SHA256). Without it, jobs with a webhook are refused."""
    private_addresses: bool = False
    """Whether calls may go to loopback, link-local and private addresses."""
    timeout_s: float = Field(default=10, gt=0, le=45)
    """Timeout of one call. It must be below the ack_wait of the queue `WEBHOOKS`."""
    max_attempts: Hot[int] = Field(default=8, ge=1, le=50)
    """Calls for one job, before the call goes to the dead letters."""
    first_pause_s: Hot[float] = Field(default=2, gt=0)
    """Pause before the second attempt; each next pause is four times as long."""
    max_pause_s: Hot[float] = Field(default=3_600, gt=0)
    """Maximum pause between two attempts."""
    concurrency: int = Field(default=16, ge=1, le=256)
    """Maximum calls at once from one process."""

    @field_validator("secret")
    @classmethod
    def _readable(cls, secret: str) -> str:
        key_of(secret)
        return secret

    def pause_s(self, attempts: int) -> float:
        """The pause after `attempts` (1 or more) failed attempts, in seconds."""
        return float(min(self.max_pause_s, self.first_pause_s * 4 ** min(attempts - 1, 32)))


class JobsSettings(BaseModel):
    """Limits and timeouts of jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_attempts: Hot[int] = Field(default=5, ge=1, le=100)
    """Attempts before a job goes to the dead letters. Attempts during an outage do not count."""
    first_pause_s: Hot[float] = Field(default=1, gt=0)
    """Pause before the second attempt; each next pause is twice as long."""
    max_pause_s: Hot[float] = Field(default=60, gt=0)
    """Maximum pause between two attempts."""
    outage_pause_s: Hot[float] = Field(default=5, gt=0)
    """Pause between two attempts while no node can serve the job."""
    max_age_s: Hot[float] = Field(default=86_400, gt=0)
    """A job that no node can serve goes to the dead letters at this age."""
    attempt_timeout_s: Hot[float] = Field(default=3_600, gt=0)
    """Timeout of one attempt, including the wait for a free slot."""
    max_listed: Hot[int] = Field(default=100, ge=1, le=1_000)
    """Maximum jobs on one page of a list."""
    webhook: WebhookSettings = WebhookSettings()

    @property
    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(
            max_attempts=self.max_attempts,
            first_pause_s=self.first_pause_s,
            max_pause_s=self.max_pause_s,
            outage_pause_s=self.outage_pause_s,
            max_age_s=self.max_age_s,
        )
