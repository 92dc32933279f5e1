"""One model on one node, as one dispatcher sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestration.messages import ModelCard, ModelRates, NodeInfo
from orchestration.placement.breaker import Breaker
from orchestration.placement.needs import TENANT, Needs
from orchestration.placement.rates import blended_rates
from orchestration.placement.server_limit import ServerLimit

STALE_S = 5.0
"""A report older than two heartbeats and a half may be of a node that is frozen."""
RAMP_S = 2.0
"""A node that comes back is taken for busy at first, for as long as its first reports take to be true."""
TENANTS = "tenants"


@dataclass(frozen=True, slots=True)
class SlotShare:
    """Of so many `dispatchers` each has its share of a node's slots; those left over go round, one turn a
    second. `number` counts turns, and differs by one between dispatchers at any moment."""

    dispatchers: int = 1
    number: int = 0

    def share(self, slots: int) -> int:
        if self.dispatchers == 1:
            return slots
        each, over = divmod(slots, self.dispatchers)
        return each + (self.number % self.dispatchers < over)


ALONE = SlotShare()


@dataclass(slots=True, eq=False)
class NodeLoad:
    """A node's last report, and what this dispatcher has there itself."""

    info: NodeInfo
    seen_at: float
    mine: int = 0
    back_at: float = -RAMP_S
    slot_share: SlotShare = ALONE
    silent: bool = False
    """It is there, and does not answer."""
    others: int = field(init=False)
    """At work there for others, when it reported last."""
    max_mine: int = field(init=False)
    """Of ours at once since then."""

    def __post_init__(self) -> None:
        self.report(self.info, self.seen_at)

    def report(self, info: NodeInfo, now: float) -> None:
        """Its report counts all that was at work, ours too, and is soon old; our own count is exact."""
        self.info, self.seen_at = info, now
        self.others = max(0, info.running - self.mine)
        self.max_mine = self.mine

    def count(self, mine: int) -> None:
        """Ours are now so many."""
        self.mine = mine
        self.max_mine = max(self.max_mine, mine)

    @property
    def at_work(self) -> int:
        """Within its share a dispatcher fills a slot again as soon as its own generation ends. Beyond that
        it waits for the node's next report, which all dispatchers see, or the others would never find a slot
        free."""
        if self.mine < self.slot_share.share(self.info.slots):
            return self.others + self.mine
        return max(self.others + self.max_mine, self.info.running)

    @property
    def free(self) -> int:
        return 0 if self.info.draining else max(0, self.info.slots - self.at_work)

    def doubt(self, now: float) -> float:
        """A factor above 1 for a node whose load is not to be believed: just back, or not heard of."""
        age = now - self.back_at
        doubt = 1.0 if age >= RAMP_S else 1 + 3 * (1 - age / RAMP_S)
        return doubt if now - self.seen_at < STALE_S else doubt * 4


@dataclass(slots=True, eq=False)
class Replica:
    """`labels` are the node's own and what is known of it anyway: node, backend, provider, accelerator."""

    load: NodeLoad
    card: ModelCard
    breaker: Breaker
    barred: bool = False
    """The node's memory is kept for other models now."""
    limit: ServerLimit | None = None
    """What its server asked for last, unless it has answered since."""
    rates: ModelRates = field(init=False)
    labels: dict[str, str] = field(init=False)
    tenants: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.refresh(self.card)

    def refresh(self, card: ModelCard) -> None:
        """Read the node's report anew."""
        info = self.load.info
        self.card = card
        self.rates = blended_rates(info.rates.get(card.name), card, info.hardware)
        known = {"node": info.id, "backend": info.backend, "provider": info.hardware.provider}
        if info.hardware.accelerators:
            known["accelerator"] = info.hardware.accelerators[0]
        self.labels = known | info.labels
        listed = info.labels.get(TENANTS, "").split(",")
        self.tenants = frozenset(name.strip() for name in listed if name.strip())

    @property
    def id(self) -> str:
        return self.load.info.id

    @property
    def free(self) -> int:
        """Slots that it could start on."""
        return 0 if self.barred else self.load.free

    @property
    def load_s(self) -> float:
        """Seconds before it can begin."""
        return 0.0 if self.card.loaded else self.card.load_s

    def usable(self, now: float) -> bool:
        """Whether more may be sent there, once it has a free slot."""
        return self.breaker.allows(now) and not self.load.info.draining and not self.load.silent

    def mismatch(self, needs: Needs) -> str:
        """Why it may never run this, '' if it may."""
        tenant = ""
        for name, value in needs.labels:
            if name == TENANT:
                tenant = value
                if value in self.tenants or self.labels.get(TENANT) == value:
                    continue
                if not self.tenants and TENANT not in self.labels:
                    continue
                return f"is not for tenant {value!r}"
            if self.labels.get(name) != value:
                return f"label {name}={value} is wanted, it has {self.labels.get(name, 'none')}"
        if not tenant and (self.tenants or TENANT in self.labels):
            return "is for its tenants alone"
        limit = self.card.context_tokens
        if limit and needs.prompt_tokens > limit:
            return f"its context of {limit} tokens cannot hold about {needs.prompt_tokens}"
        return ""
