"""Where a generation runs."""

from orchestration.placement.breaker import BreakerSettings, Outcome
from orchestration.placement.chooser import Choice, Chooser, Waiting, Waits
from orchestration.placement.explain import Candidate, Explanation, explain
from orchestration.placement.first_output import Call, FirstOutputs, FirstOutputSettings
from orchestration.placement.hedging import FirstTokens, HedgeSettings
from orchestration.placement.linear_fit import Line
from orchestration.placement.needs import NEEDS_HEADER, Demand, Needs, as_labels, needs_of
from orchestration.placement.replica import Turn

__all__ = [
    "NEEDS_HEADER",
    "BreakerSettings",
    "Call",
    "Candidate",
    "Choice",
    "Chooser",
    "Demand",
    "Explanation",
    "FirstOutputSettings",
    "FirstOutputs",
    "FirstTokens",
    "HedgeSettings",
    "Line",
    "Needs",
    "Outcome",
    "Turn",
    "Waiting",
    "Waits",
    "as_labels",
    "explain",
    "needs_of",
]
