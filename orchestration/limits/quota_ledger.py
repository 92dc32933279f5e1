"""What the gateways of a cluster have shared out of one limit, and how they share it.

Each change is written by compare-and-set, so what was given to one is not given to another. Places (requests
in flight) are held until another wants them; tokens are drawn in blocks and spent. Who is short says so, and
whoever has more than it uses gives it up; one that has more than its fair part shrinks to it as its requests
end, while another has less.
"""

from __future__ import annotations

from collections.abc import Set

from pydantic import Field, ValidationError

from orchestration.messages import Wire

BLOCK = 32
"""Gateways draw tokens in blocks of this part of a minute's, so that at most that much lies at each."""
WANT_S = 2.0
"""How long a gateway counts as short of places after it said so."""


class QuotaLedger(Wire):
    """`permits` are those each gateway may use, `short_at` when a gateway last said that it has too few,
    `tokens` what nobody has drawn, as it was at `at`. Times are Unix seconds, from clocks that agree to a
    second or so: what a clock is wrong by flows in once too early or too late."""

    permits: dict[str, int] = Field(default_factory=dict)
    short_at: dict[str, float] = Field(default_factory=dict)
    tokens: float = Field(default=0.0, allow_inf_nan=False)
    at: float = 0.0

    @classmethod
    def read(cls, value: bytes | None) -> QuotaLedger:
        """A new one for None, and for what cannot be read: another version of Orchestra wrote it."""
        try:
            return cls() if value is None else cls.model_validate_json(value)
        except ValidationError:
            return cls()

    def only(self, live: Set[str]) -> QuotaLedger:
        """Without gateways that are gone."""
        return self.model_copy(
            update={
                "permits": {
                    name: count for name, count in self.permits.items() if name in live and count > 0
                },
                "short_at": {name: when for name, when in self.short_at.items() if name in live},
            }
        )

    def free(self, limit: int) -> int:
        """Places that no gateway has."""
        return limit - sum(self.permits.values())

    def short_peers(self, me: str, now: float) -> set[str]:
        """Others that are short of places."""
        return {name for name in self.short_at if name != me and self.is_short(name, now)}

    def is_short(self, name: str, now: float) -> bool:
        """Whether a gateway is short of places."""
        return now - self.short_at.get(name, -WANT_S) < WANT_S

    def fair_share(self, me: str, limit: int, now: float) -> int:
        """The part of one of those who have or want places, when each gets the same. Where there are fewer
        places than gateways, whoever has one keeps it until it is not used for a moment."""
        return max(1, limit // len({me} | self.permits.keys() | self.short_peers(me, now)))

    def usable(self, me: str, limit: int, now: float) -> int:
        """How many places `me` may have in use now: what it holds, or the fair part while another has less
        than that and is short."""
        count, fair_share = self.permits.get(me, 0), self.fair_share(me, limit, now)
        poor = any(self.permits.get(rival, 0) < fair_share for rival in self.short_peers(me, now))
        return min(count, fair_share) if poor else count

    def with_permits(self, me: str, count: int) -> QuotaLedger:
        return self.model_copy(update={"permits": self.permits | {me: count}})

    def draw_permits(self, me: str, used: int, limit: int, now: float) -> QuotaLedger:
        """With a place for one more than `used`, where there is one: all that are free, or no more than the
        fair part where others are short too. Where there is no place for it, `me` is short."""
        count = self.permits.get(me, 0)
        most = max(count, self.fair_share(me, limit, now)) if self.short_peers(me, now) else limit
        got = max(count, min(count + max(0, self.free(limit)), most))
        short_at = {name: when for name, when in self.short_at.items() if name != me}
        if got <= used:
            short_at[me] = now
        return self.with_permits(me, got).model_copy(update={"short_at": short_at})

    def yield_permits(self, me: str, used: int, limit: int, now: float) -> QuotaLedger:
        """With what `me` gives up because others are short: what it does not use, or, when it is short
        itself, what is beyond its fair part, as far as it is not used."""
        count = self.permits.get(me, 0)
        if not self.short_peers(me, now):
            return self
        keep = max(used, self.fair_share(me, limit, now) if self.is_short(me, now) else 0)
        return self.with_permits(me, min(count, keep))

    def refilled(self, per_minute: int, now: float) -> QuotaLedger:
        """With the tokens that came in until now; a book that is new has a minute's."""
        if not self.at:
            return self.model_copy(update={"tokens": float(per_minute), "at": now})
        if now <= self.at:
            return self
        tokens = min(float(per_minute), self.tokens + (now - self.at) * per_minute / 60)
        return self.model_copy(update={"tokens": tokens, "at": now})

    def draw_tokens(self, needed: float, per_minute: int, now: float) -> tuple[QuotaLedger, float]:
        """Take `needed` and a block beside it, or as much of that block as there is; nothing where there is
        less than `needed`. Returns what was taken."""
        book = self.refilled(per_minute, now)
        if book.tokens < needed:
            return book, 0.0
        taken = min(book.tokens, needed + per_minute / BLOCK)
        return book.model_copy(update={"tokens": book.tokens - taken}), taken

    def give_tokens(self, tokens: float, per_minute: int, now: float) -> QuotaLedger:
        """Return what was drawn and is not needed; a negative number takes what was spent beyond it."""
        book = self.refilled(per_minute, now)
        return book.model_copy(update={"tokens": min(float(per_minute), book.tokens + tokens)})
