"""Prometheus metrics of the choices of `auto` and of user ratings."""

from __future__ import annotations

from prometheus_client import Counter

CHOICES = Counter(
    "orchestra_auto_choices", "Arms (profile and pattern) that auto chose, over all models", ["kind", "arm"]
)
OBSERVATIONS_LOST = Counter(
    "orchestra_auto_observations_lost",
    "Observations of runs that were dropped because the record could not be written in time",
)
DEBATE_FLIPS = Counter(
    "orchestra_debate_flips",
    "Debates in which a later round led to another answer than the first; `outcome` says whether that answer "
    "was taken or refused",
    ["kind", "outcome"],
)
DEBATE_FLIPS_JUDGED = Counter(
    "orchestra_debate_flips_judged",
    "User ratings of such debates, by sign; a bad rating of a taken flip means that it led to a wrong answer",
    ["kind", "outcome", "rating"],
)
FEEDBACK = Counter(
    "orchestra_feedback", "User ratings that were counted, by sign", ["kind", "pattern", "rating"]
)
