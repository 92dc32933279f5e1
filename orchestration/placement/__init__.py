"""Where a generation runs."""

from orchestration.placement.least_busy import free_slots, least_busy

__all__ = ["free_slots", "least_busy"]
