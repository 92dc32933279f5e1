"""What can be set of jobs. The same in every process: gateways admit them, agents perform and settle them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.jobs.signing import key_of
from orchestration.retries import RetryPolicy


class WebhookSettings(BaseModel):
    """How the end of a job is told to a URL that its submitter named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: str = Field(default="", repr=False)
    """Signs every call (HMAC-SHA256). Without it jobs with a webhook are refused."""
    private_addresses: bool = False
    """Whether calls may go to loopback, link-local and private addresses: to whatever is in the network."""
    timeout_s: float = Field(default=10, gt=0, le=45)
    """Of one call, below the ack_wait of its queue."""
    max_attempts: int = Field(default=8, ge=1, le=50)
    first_pause_s: float = Field(default=2, gt=0)
    """Before the second attempt; four times as long before each next one."""
    max_pause_s: float = Field(default=3_600, gt=0)
    concurrency: int = Field(default=16, ge=1, le=256)
    """Calls at once from one process."""

    @field_validator("secret")
    @classmethod
    def _readable(cls, secret: str) -> str:
        key_of(secret)
        return secret

    def pause_s(self, attempts: int) -> float:
        """Seconds before the attempt after `attempts` (1 or more) of them."""
        return float(min(self.max_pause_s, self.first_pause_s * 4 ** min(attempts - 1, 32)))


class JobsSettings(BaseModel):
    """Limits and times of jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_attempts: int = Field(default=5, ge=1, le=100)
    """Attempts that count, before a job goes to the dead letters. An outage uses none up."""
    first_pause_s: float = Field(default=1, gt=0)
    """Before the second attempt; twice as long before each next one."""
    max_pause_s: float = Field(default=60, gt=0)
    outage_pause_s: float = Field(default=5, gt=0)
    """Between two offers of a job while no node could serve it."""
    max_age_s: float = Field(default=86_400, gt=0)
    """A job this old that no node can serve is given up."""
    attempt_timeout_s: float = Field(default=3_600, gt=0)
    """The longest one attempt may take, the wait for a free slot included."""
    max_listed: int = Field(default=100, ge=1, le=1_000)
    """Jobs on one page of a list."""
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
