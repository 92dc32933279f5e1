"""How the gateways of a cluster divide one limit.

Each change is written by compare-and-set, so that no quota is given twice. A gateway keeps its permits (for
requests in flight) until another needs them; it draws tokens in blocks and spends them. A gateway that is
short is recorded as such, and the others return the permits that they do not use. One with more than its fair
share shrinks to it as its requests end, while another has less.
"""

from __future__ import annotations

from collections.abc import Set

from pydantic import Field, ValidationError

from orchestration.messages import Wire

BLOCK = 32
"""Gateways draw tokens in blocks of 1/32 of a minute's tokens, which is the most that each has unused."""
WANT_S = 2.0
"""How long a gateway counts as short of permits after it recorded that."""


class QuotaLedger(Wire):
    """`permits` of each gateway, `short_at` is when a gateway last was short of them, `tokens` were not drawn
    at the time `at`. Times are Unix seconds of clocks that agree to about a second: tokens of the difference
    come too early or too late, once."""

    permits: dict[str, int] = Field(default_factory=dict)
    short_at: dict[str, float] = Field(default_factory=dict)
    tokens: float = Field(default=0.0, allow_inf_nan=False)
    at: float = 0.0

    @classmethod
    def read(cls, value: bytes | None) -> QuotaLedger:
        """Parse an entry. None, and an entry that another version wrote differently, give a new ledger."""
        try:
            return cls() if value is None else cls.model_validate_json(value)
        except ValidationError:
            return cls()

    def only(self, live: Set[str]) -> QuotaLedger:
        """Return the ledger without gateways that are gone."""
        return self.model_copy(
            update={
                "permits": {
                    name: count for name, count in self.permits.items() if name in live and count > 0
                },
                "short_at": {name: when for name, when in self.short_at.items() if name in live},
            }
        )

    def free(self, limit: int) -> int:
        """The permits that no gateway has."""
        return limit - sum(self.permits.values())

    def short_peers(self, me: str, now: float) -> set[str]:
        """The other gateways that are short of permits."""
        return {name for name in self.short_at if name != me and self.is_short(name, now)}

    def is_short(self, name: str, now: float) -> bool:
        """Whether a gateway is short of permits."""
        return now - self.short_at.get(name, -WANT_S) < WANT_S

    def fair_share(self, me: str, limit: int, now: float) -> int:
        """The permits of each gateway that has or needs some, if all get the same number; at least 1. With
        fewer permits than gateways, a gateway keeps its one until it is unused."""
        return max(1, limit // len({me} | self.permits.keys() | self.short_peers(me, now)))

    def usable(self, me: str, limit: int, now: float) -> int:
        """The permits that `me` may use now: those it has, but only its fair share while another gateway with
        less is short. When the limit was lowered below what all have, those that the others leave."""
        count, fair_share = self.permits.get(me, 0), self.fair_share(me, limit, now)
        if self.free(limit) < 0:
            count = max(0, count + self.free(limit))
        is_unfair = any(self.permits.get(peer, 0) < fair_share for peer in self.short_peers(me, now))
        return min(count, fair_share) if is_unfair else count

    def with_permits(self, me: str, count: int) -> QuotaLedger:
        return self.model_copy(update={"permits": self.permits | {me: count}})

    def draw_permits(self, me: str, used: int, limit: int, now: float) -> QuotaLedger:
        """Give `me` the free permits, but not more than its fair share if others are short too. If it has no
        more than `used` then, it is recorded as short."""
        count = self.permits.get(me, 0)
        most = max(count, self.fair_share(me, limit, now)) if self.short_peers(me, now) else limit
        got = max(count, min(count + max(0, self.free(limit)), most))
        short_at = {name: when for name, when in self.short_at.items() if name != me}
        if got <= used:
            short_at[me] = now
        return self.with_permits(me, got).model_copy(update={"short_at": short_at})

    def yield_permits(self, me: str, used: int, limit: int, now: float) -> QuotaLedger:
        """If others are short, take unused permits from `me`: all, or those beyond its fair share if it is
        short too. Take all too when the limit was lowered below what all have."""
        count = self.permits.get(me, 0)
        if self.free(limit) < 0:
            return self.with_permits(me, min(count, used))
        if not self.short_peers(me, now):
            return self
        keep = max(used, self.fair_share(me, limit, now) if self.is_short(me, now) else 0)
        return self.with_permits(me, min(count, keep))

    def refilled(self, per_minute: int, now: float) -> QuotaLedger:
        """Add the tokens that have flowed in until now; a new ledger has those of one minute."""
        if not self.at:
            return self.model_copy(update={"tokens": float(per_minute), "at": now})
        if now <= self.at:
            return self
        tokens = min(float(per_minute), self.tokens + (now - self.at) * per_minute / 60)
        return self.model_copy(update={"tokens": tokens, "at": now})

    def draw_tokens(self, needed: float, per_minute: int, now: float) -> tuple[QuotaLedger, float]:
        """Take `needed` tokens and up to a block more, or nothing if there are fewer than `needed`. Returns
        the number taken."""
        ledger = self.refilled(per_minute, now)
        if ledger.tokens < needed:
            return ledger, 0.0
        taken = min(ledger.tokens, needed + per_minute / BLOCK)
        return ledger.model_copy(update={"tokens": ledger.tokens - taken}), taken

    def give_tokens(self, tokens: float, per_minute: int, now: float) -> QuotaLedger:
        """Return unused tokens; a negative number takes the tokens that were spent beyond those drawn."""
        ledger = self.refilled(per_minute, now)
        return ledger.model_copy(update={"tokens": min(float(per_minute), ledger.tokens + tokens)})
