"""Which models are in a memory that does not hold all, and whose turn it is.

Pure: time comes in as an argument, in seconds on any clock that never goes back.
"""

from orchestration.model_memory.grouping import Grouping, PendingModel, TimeSlices
from orchestration.model_memory.residency import Residency

__all__ = [
    "Grouping",
    "PendingModel",
    "Residency",
    "TimeSlices",
]
