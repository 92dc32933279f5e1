"""Settings of callers, their limits, and the response cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
)

from actors.config.key_hash import check_key, hash_of
from orchestration.limits import QuotaLimit
from orchestration.validation import TextForm

INFERENCE: Literal["inference"] = "inference"
ADMIN: Literal["admin"] = "admin"
Scope = Literal["inference", "admin"]
CallerName = Annotated[str, TextForm.name("_.@-", 64)]


class CallerLimits(BaseModel):
    """Limits of one caller. A limit that is not set is that of `[gateway.limits.per_caller]`, if any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_in_flight: int | None = Field(default=None, ge=1)
    """Maximum requests in flight; one more is refused with 429."""
    queue_depth: int | None = Field(default=None, ge=1)
    """Maximum requests in flight without a first event; one more is refused with 429."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Maximum tokens of prompts and answers per minute; more are refused with 429. A request reserves the
    tokens it may use and returns the unused ones at its end. A job reserves them when it is submitted; the
    gateway that accepted it returns the unused ones, unless it has stopped by then."""
    unfinished_jobs: int | None = Field(default=None, ge=1)
    """Maximum jobs that are queued or running in the whole cluster; one more is refused with 429. Without
    it, the queue is the limit: 20,000 jobs of one pattern and priority."""

    def over(self, otherwise: CallerLimits) -> CallerLimits:
        """Return these limits, with those of `otherwise` where one is not set."""
        names = CallerLimits.model_fields
        return CallerLimits(
            **{name: getattr(otherwise if getattr(self, name) is None else self, name) for name in names}
        )

    def limit(self) -> QuotaLimit:
        """Return the limits that a gateway checks; `unfinished_jobs` is checked by the job store."""
        return QuotaLimit(
            requests_in_flight=self.requests_in_flight,
            queue_depth=self.queue_depth,
            tokens_per_minute=self.tokens_per_minute,
        )


class CallerSettings(CallerLimits):
    """`[gateway.callers.NAME]`: a request with `key` comes from NAME."""

    key: SecretStr = Field(min_length=8)
    """The API key, sent as `Authorization: Bearer KEY`. At least 8 characters; or `sha256:` and its SHA-256
    in hexadecimal digits, so that the key itself is nowhere."""
    scopes: tuple[Scope, ...] = (INFERENCE,)
    """What the key may call: `inference` the routes under `/v1`, `admin` those under `/admin`. Give operators
    `["admin"]`."""
    namespace: CallerName | None = None
    """Callers of the same namespace share cached responses, equal requests in progress, and jobs. Default:
    the caller alone."""

    @field_validator("key")
    @classmethod
    def _readable(cls, key: SecretStr) -> SecretStr:
        check_key(key.get_secret_value())
        return key


class LimitsSettings(BaseModel):
    """Limits of all callers together, at all gateways together.

    Gateways divide `requests_in_flight` and `tokens_per_minute` among themselves by demand. Each gateway
    counts `queue_depth` alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_in_flight: int | None = Field(default=None, ge=1)
    """Maximum requests in flight of all callers at all gateways; one more is refused with 429. Gateways
    divide it among themselves by demand."""
    queue_depth: int | None = Field(default=None, ge=1)
    """Maximum requests in flight without a first event at one gateway; one more is refused with 429."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Maximum tokens of prompts and answers per minute, of all callers at all gateways; more are refused with
    429. Gateways divide it among themselves by demand."""
    per_caller: CallerLimits = CallerLimits()
    """Limits of each caller, where the caller's own section does not set them."""
    assumed_tokens: int = Field(default=1024, ge=1)
    """Tokens reserved for the answer of a request without `max_tokens`. If the answer is longer, the excess
    is a debt: later requests wait until it is paid off."""


class CacheSettings(BaseModel):
    """The cache of deterministic responses (see `orchestration.response_cache.fingerprint`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    """False turns off the cache, and the sharing of equal requests in progress."""
    ttl_s: float = Field(default=3600, gt=0)
    """How long a response is cached, unless the request has `cache.ttl`."""
    max_ttl_s: float = Field(default=86_400, gt=0)
    """Maximum `cache.ttl` of a request; a longer one is shortened to it. The shared bucket keeps entries for
    a day at most."""
    max_entries: int = Field(default=10_000, ge=0)
    """Maximum cached responses per process; the least recently used are evicted."""
    max_bytes: int = Field(default=64 * 2**20, ge=0)
    """Maximum bytes of cached responses per process; the least recently used are evicted."""
    max_answer_bytes: int = Field(default=512 * 2**10, ge=1024)
    """Maximum size of a cached response; a longer one is not cached. Keep it below `max_value_kib` of the
    bucket `response_cache`."""
    shared: bool = True
    """Also store responses in the bucket `response_cache`, for other gateways and across restarts."""
    max_shared_stream_bytes: int = Field(default=4 * 2**20, ge=1024)
    """Maximum bytes buffered of one generation that several requests share, for those that join late or read
    slowly. Beyond it no request can join, and one that reads too slowly fails."""
    max_shared_streams_bytes: int = Field(default=64 * 2**20, ge=1024)
    """Maximum bytes buffered of all shared generations; beyond it no further request can join them."""


def _distinct(callers: Mapping[str, CallerSettings]) -> Mapping[str, CallerSettings]:
    keys = [hash_of(caller.key.get_secret_value()) for caller in callers.values()]
    if len(set(keys)) < len(keys):
        raise ValueError("two callers have the same key")
    return callers


CallersSettings = Annotated[dict[CallerName, CallerSettings], AfterValidator(_distinct)]
