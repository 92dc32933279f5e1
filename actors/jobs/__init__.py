"""Jobs: work that is handed in, performed at least once, recorded once, and fetched by its id."""

from actors.jobs.service import Desk, Order
from actors.jobs.settings import JobsSettings

__all__ = ["Desk", "JobsSettings", "Order"]
