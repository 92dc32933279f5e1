"""One model on one node, as a dispatcher knows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestration.messages import ModelCard, ModelRates, NodeInfo
from orchestration.placement.breaker import Breaker
from orchestration.placement.needs import TENANT, Needs
from orchestration.placement.rates import blended_rates
from orchestration.placement.server_limit import ServerLimit

STALE_S = 5.0
"""Age of a report after which the node may be frozen: two and a half heartbeats."""
RAMP_S = 2.0
"""How long a node that has come back counts as busy, in seconds, until its reports are reliable."""
TENANTS = "tenants"


@dataclass(frozen=True, slots=True)
class SlotShare:
    """Divides a node's slots evenly among `dispatchers`. The remaining slots rotate each second: `number`
    counts the rotations and differs by one between the dispatchers."""

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
    """A node's last report, and the generations of this dispatcher on it (`mine`)."""

    info: NodeInfo
    seen_at: float
    mine: int = 0
    back_at: float = -RAMP_S
    slot_share: SlotShare = ALONE
    silent: bool = False
    """Whether the node is registered but does not answer pings."""
    others: int = field(init=False)
    """Generations of other dispatchers on the node at its last report."""
    max_mine: int = field(init=False)
    """Maximum of `mine` since the last report."""

    def __post_init__(self) -> None:
        self.report(self.info, self.seen_at)

    def report(self, info: NodeInfo, now: float) -> None:
        """Store a report. It counts all generations, including this dispatcher's, and is soon outdated; the
        own count is exact."""
        self.info, self.seen_at = info, now
        self.others = max(0, info.running - self.mine)
        self.max_mine = self.mine

    def count(self, mine: int) -> None:
        """Set the number of this dispatcher's generations."""
        self.mine = mine
        self.max_mine = max(self.max_mine, mine)

    @property
    def at_work(self) -> int:
        """Generations on the node, by the latest knowledge.

        Within its share a dispatcher fills a slot as soon as its own generation ends. Beyond its share it
        waits for the node's next report, which all dispatchers see; otherwise the others would never find a
        free slot.
        """
        if self.mine < self.slot_share.share(self.info.slots):
            return self.others + self.mine
        return max(self.others + self.max_mine, self.info.running)

    @property
    def free(self) -> int:
        return 0 if self.info.draining else max(0, self.info.slots - self.at_work)

    def doubt(self, now: float) -> float:
        """A factor above 1 for a node whose load is uncertain, because it has just come back or does not
        report."""
        age = now - self.back_at
        doubt = 1.0 if age >= RAMP_S else 1 + 3 * (1 - age / RAMP_S)
        return doubt if now - self.seen_at < STALE_S else doubt * 4


@dataclass(slots=True, eq=False)
class Replica:
    """`labels` are the node's own and those known from its report: node, backend, provider, accelerator."""

    load: NodeLoad
    card: ModelCard
    breaker: Breaker
    barred: bool = False
    """Whether the node's memory is kept for other models now."""
    limit: ServerLimit | None = None
    """The last refusal of its server, until it answers again."""
    rates: ModelRates = field(init=False)
    labels: dict[str, str] = field(init=False)
    tenants: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.refresh(self.card)

    def refresh(self, card: ModelCard) -> None:
        """Take over the rates and labels of the node's last report."""
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
        """Slots on which this model could start."""
        return 0 if self.barred else self.load.free

    @property
    def load_s(self) -> float:
        """Seconds that the model still needs to load."""
        return 0.0 if self.card.loaded else self.card.load_s

    def usable(self, now: float) -> bool:
        """Whether more generations may be sent there, once a slot is free."""
        return self.breaker.allows(now) and not self.load.info.draining and not self.load.silent

    def mismatch(self, needs: Needs) -> str:
        """Why the replica can never run this; '' if it can."""
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
                return f"label {name}={value} is required, it has {self.labels.get(name, 'none')}"
        if not tenant and (self.tenants or TENANT in self.labels):
            return "is reserved for its tenants"
        limit = self.card.context_tokens
        if limit and needs.prompt_tokens > limit:
            return f"its context of {limit} tokens cannot hold about {needs.prompt_tokens}"
        return ""
