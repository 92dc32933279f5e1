"""Estimates how long a generation would take on a replica; lower is better."""

from __future__ import annotations

from typing import NamedTuple

from orchestration.placement.needs import Demand, Needs
from orchestration.placement.replica import Replica

CROWDING = 0.25
"""How much slower a full node counts than its rates say, so that the emptier of two equal nodes is chosen."""
MAX_ERROR_RATE = 0.9
"""Keeps the expected number of tries finite; the breaker handles nodes that always fail."""
TIER = "tier"
EDGE, STRONG = "edge", "strong"

AFFINITY = {
    Demand.LIGHT: {EDGE: 0.6, STRONG: 1.4},
    Demand.ORDINARY: {},
    Demand.HEAVY: {EDGE: 2.0, STRONG: 0.7},
}
"""Factors by demand and tier. Short simple work goes to the edge even where that takes up to 2.3 times as
long, which keeps the strong nodes free; heavy work leaves the edge unless the edge is 2.9 times as fast."""


class Score(NamedTuple):
    """`cost` decides: the expected seconds, times the other factors."""

    cost: float
    service_s: float
    """Seconds to read the prompt and write the answer beside the other generations there."""
    tries: float
    """Expected number of tries until one succeeds, by the node's error rate."""
    slowdown: float
    """How much slower the node's latest generations were than its rates say."""
    affinity: float
    doubt: float


def tier_of(replica: Replica) -> str:
    """The node's label `tier`; without one, a node with an accelerator is strong."""
    tier = replica.load.info.labels.get(TIER)
    if tier is not None:
        return tier
    return STRONG if replica.load.info.hardware.accelerators else ""


def affinity_of(replica: Replica, needs: Needs) -> float:
    """A factor on the time; below 1 when the node suits the demand."""
    by_tier = AFFINITY[needs.demand]
    return by_tier.get(tier_of(replica), 1.0) if by_tier else 1.0


def service_s(replica: Replica, needs: Needs, others: int) -> float:
    """Seconds on the node while `others` are in progress there, including the loading of the model."""
    rates = replica.rates
    token_s = rates.token_s + rates.token_s_per_other * others
    return (
        replica.load_s
        + rates.first_s
        + rates.prompt_token_s * needs.prompt_tokens
        + token_s * needs.output_tokens
    )


def score(replica: Replica, needs: Needs, now: float) -> Score:
    """The cost of starting `needs` there now."""
    load, rates = replica.load, replica.rates
    others = load.at_work
    seconds = service_s(replica, needs, others)
    tries = 1 / (1 - min(rates.error_rate, MAX_ERROR_RATE))
    affinity = affinity_of(replica, needs)
    doubt = load.doubt(now)
    crowding = 1 + CROWDING * (others + 1) / load.info.slots
    cost = seconds * tries * rates.slowdown * affinity * doubt * crowding
    return Score(cost, seconds, tries, rates.slowdown, affinity, doubt)


def weight(replica: Replica, needs: Needs) -> float:
    """How likely the replica is drawn: the generations per second it could do if it were empty."""
    seconds = service_s(replica, needs, 0) * affinity_of(replica, needs)
    return replica.load.info.slots / max(seconds, 1e-6)
