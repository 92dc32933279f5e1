"""How long a generation would take on a replica: the lower, the better a place."""

from __future__ import annotations

from typing import NamedTuple

from orchestration.placement.needs import Demand, Needs
from orchestration.placement.replica import Replica

CROWDING = 0.25
"""What a full node is taken to be slower than its fit says, so that of equal nodes the emptier one wins."""
MAX_ERROR_RATE = 0.9
"""A node that always fails is the breaker's business; here its expected tries only stay finite."""
TIER = "tier"
EDGE, STRONG = "edge", "strong"

AFFINITY = {
    Demand.LIGHT: {EDGE: 0.6, STRONG: 1.4},
    Demand.ORDINARY: {},
    Demand.HEAVY: {EDGE: 2.0, STRONG: 0.7},
}
"""By demand and tier. Short simple work goes to the edge even where that takes up to 2.3 times as long,
which keeps the strong nodes free; heavy work leaves the edge unless that is 2.9 times as fast."""


class Score(NamedTuple):
    """`cost` decides: seconds to be expected, times what makes the node less or more of a choice."""

    cost: float
    service_s: float
    """Reading the prompt and writing the answer, beside what is at work there."""
    tries: float
    """Until one succeeds, by the node's error rate."""
    slowdown: float
    """The node's latest generations against what its rates said."""
    affinity: float
    doubt: float


def tier_of(replica: Replica) -> str:
    """What the node's label `tier` says; without one, an accelerator makes it strong."""
    tier = replica.load.info.labels.get(TIER)
    if tier is not None:
        return tier
    return STRONG if replica.load.info.hardware.accelerators else ""


def affinity_of(replica: Replica, needs: Needs) -> float:
    """A factor on the time: below 1 where the node suits what the query deserves."""
    by_tier = AFFINITY[needs.demand]
    return by_tier.get(tier_of(replica), 1.0) if by_tier else 1.0


def service_s(replica: Replica, needs: Needs, others: int) -> float:
    """Seconds on the node while `others` are at work there, its model loaded first where need be."""
    rates = replica.rates
    token_s = rates.token_s + rates.token_s_per_other * others
    return (
        replica.load_s
        + rates.first_s
        + rates.prompt_token_s * needs.prompt_tokens
        + token_s * needs.output_tokens
    )


def score(replica: Replica, needs: Needs, now: float) -> Score:
    """What it would cost to start `needs` there now."""
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
    """How often a replica is looked at: by the generations a second it could do, were it empty."""
    seconds = service_s(replica, needs, 0) * affinity_of(replica, needs)
    return replica.load.info.slots / max(seconds, 1e-6)
