"""The probability that the leader of a vote keeps its lead: if it is high, the vote may end early.

The votes for the leader among those cast are taken as draws with an unknown share p with a uniform prior,
Beta(1, 1); the number of the pending votes for it then follows the beta-binomial distribution. The vote ends
when the leader keeps its lead with at least the wanted probability. This is stochastic curtailment by
predictive probability (Spiegelhalter, Freedman, Blackburn, Controlled Clinical Trials 7, 1986), for a vote of
known size. Adaptive-Consistency (Aggarwal et al., EMNLP 2023) asks with the same Beta posterior whether the
leader would win among infinitely many votes, which needs more votes than there mostly are. Where no pending
vote could change the outcome, the probability is 1.

The estimate errs on the side of going on: all pending votes that are not the leader's are counted for the
runner-up, and a tie as a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, lgamma

TEST_NAME = "beta-binomial predictive probability that the leader of the votes cast leads when all have voted"


def lead_probability(leader: float, runner_up: float, others: float, out: Sequence[float]) -> float:
    """The probability that the leader still leads when the votes `out`, given by their weights, are in.

    `leader` and `runner_up` are weights of votes so far; `others` is the weight of all votes that are not the
    leader's, including the runner-up's. A weight of 1 counts as one draw.
    """
    lead = leader - runner_up
    if lead <= 0:
        return 0.0
    ahead = 0.0
    for (votes, weight), ways in _outcomes(out).items():
        if lead + 2 * weight - sum(out) > 1e-9:
            ahead += ways * _chance(votes, len(out), 1 + leader, 1 + others)
    return min(1.0, round(ahead, 12))


def _outcomes(out: Sequence[float]) -> dict[tuple[int, float], int]:
    """The number of ways in which so many of the pending votes, of so much weight together, can go to the
    leader."""
    ways = {(0, 0.0): 1}
    for weight in out:
        more = dict(ways)
        for (votes, total), count in ways.items():
            key = (votes + 1, round(total + weight, 6))
            more[key] = more.get(key, 0) + count
        ways = more
    return ways


def _chance(votes: int, of: int, a: float, b: float) -> float:
    """The probability that exactly `votes` of so many are the leader's: B(a + votes, b + of - votes) / B(a,
    b)."""
    return exp(
        lgamma(a + votes)
        + lgamma(b + of - votes)
        - lgamma(a + b + of)
        + lgamma(a + b)
        - lgamma(a)
        - lgamma(b)
    )
