"""Jobs: work that is handed in, performed at least once, recorded once, and fetched by its id."""

from actors.jobs.service import JobService, JobSubmission
from actors.jobs.settings import JobsSettings

__all__ = ["JobService", "JobSubmission", "JobsSettings"]
