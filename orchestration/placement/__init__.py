"""Chooses the node for a generation."""

from orchestration.placement.breaker import BreakerSettings, Outcome
from orchestration.placement.chooser import Choice, Chooser, Deferral, PendingGeneration
from orchestration.placement.explain import Candidate, Explanation, candidate_lines, explain
from orchestration.placement.first_output import Call, FirstOutputs, FirstOutputSettings
from orchestration.placement.hedging import FirstTokens, HedgeSettings
from orchestration.placement.linear_fit import LinearFit
from orchestration.placement.needs import NEEDS_HEADER, Demand, Needs, needs_of, parse_labels
from orchestration.placement.replica import SlotShare
from orchestration.placement.replica_index import ReplicaIndex

__all__ = [
    "NEEDS_HEADER",
    "BreakerSettings",
    "Call",
    "Candidate",
    "Choice",
    "Chooser",
    "Deferral",
    "Demand",
    "Explanation",
    "FirstOutputSettings",
    "FirstOutputs",
    "FirstTokens",
    "HedgeSettings",
    "LinearFit",
    "Needs",
    "Outcome",
    "PendingGeneration",
    "ReplicaIndex",
    "SlotShare",
    "candidate_lines",
    "explain",
    "needs_of",
    "parse_labels",
]
