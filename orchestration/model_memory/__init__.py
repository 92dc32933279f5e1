"""Decides which models are in a memory that does not hold all of them, and which may start next.

Pure: times are arguments, in seconds on any monotonic clock.
"""

from orchestration.model_memory.grouping import Grouping, PendingModel, TimeSlices
from orchestration.model_memory.residency import Residency

__all__ = [
    "Grouping",
    "PendingModel",
    "Residency",
    "TimeSlices",
]
