"""What a gateway lets each caller do, and what it keeps of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from orchestration.limits import QuotaLimit

CallerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")]


class CallerLimits(BaseModel):
    """Of one caller; what is not set is not limited, or as `[gateway.limits.per_caller]` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_in_flight: int | None = Field(default=None, ge=1)
    """Requests at work at once; one more is refused with 429."""
    queue_depth: int | None = Field(default=None, ge=1)
    """Of them, those whose answer has not begun."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Prompt and answer together. A request reserves what it may take, and gives back what it did not. A job
    is charged what it may take when it is submitted; the gateway that took it gives back the rest at its
    end, if it is still there."""
    unfinished_jobs: int | None = Field(default=None, ge=1)
    """Jobs that are queued or at work, in the whole cluster; one more is refused with 429. What is not
    limited here is by the queue, which takes 20,000 of one pattern and priority."""

    def over(self, otherwise: CallerLimits) -> CallerLimits:
        """With the values of `otherwise` for what was not set."""
        names = CallerLimits.model_fields
        return CallerLimits(
            **{name: getattr(otherwise if getattr(self, name) is None else self, name) for name in names}
        )

    def limit(self) -> QuotaLimit:
        """What a gateway holds to."""
        return QuotaLimit(
            requests_in_flight=self.requests_in_flight,
            queue_depth=self.queue_depth,
            tokens_per_minute=self.tokens_per_minute,
        )


class CallerSettings(CallerLimits):
    """`[gateway.callers.NAME]`: who shows `key` is NAME."""

    key: SecretStr = Field(min_length=8)
    """What the caller sends as `Authorization: Bearer KEY`."""
    namespace: CallerName | None = None
    """Callers with the same one share kept answers and generations at work; by default nobody does."""


class LimitsSettings(BaseModel):
    """For all callers together, at all gateways together; `max_in_flight` of `[gateway]` is of each gateway.

    Gateways share requests in flight and tokens out among themselves, by what comes to each; those whose
    answer has not begun are counted by each gateway alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_in_flight: int | None = Field(default=None, ge=1)
    queue_depth: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    per_caller: CallerLimits = CallerLimits()
    """For each caller that has none of its own."""
    assumed_tokens: int = Field(default=1024, ge=1)
    """What is reserved for an answer whose `max_tokens` was not said. A longer one is owed, and waited out
    by those who come next."""


class CacheSettings(BaseModel):
    """What is kept of deterministic answers (see `orchestration.response_cache.fingerprint`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    """Off: nothing is kept, and nothing is shared while it is at work."""
    ttl_s: float = Field(default=3600, gt=0)
    """How long an answer is kept, unless the request says `cache.ttl`."""
    max_ttl_s: float = Field(default=86_400, gt=0)
    """The most that a request may ask for. The shared bucket forgets after a day in any case."""
    max_entries: int = Field(default=10_000, ge=0)
    max_bytes: int = Field(default=64 * 2**20, ge=0)
    """In this process; what was used last stays."""
    max_answer_bytes: int = Field(default=512 * 2**10, ge=1024)
    """A longer answer is not kept. At most the bucket's `max_value_kib`."""
    shared: bool = True
    """Also keep answers in the bucket `answers`, for other gateways and across restarts."""
    max_shared_stream_bytes: int = Field(default=4 * 2**20, ge=1024)
    """Of one generation that several follow: what is held for those who join late or read slowly."""
    max_shared_streams_bytes: int = Field(default=64 * 2**20, ge=1024)
    """Of all of them; past it they take no more followers."""


def _distinct(callers: Mapping[str, CallerSettings]) -> Mapping[str, CallerSettings]:
    keys = [caller.key.get_secret_value() for caller in callers.values()]
    if len(set(keys)) < len(keys):
        raise ValueError("two callers have the same key")
    return callers


CallersSettings = Annotated[dict[CallerName, CallerSettings], AfterValidator(_distinct)]
