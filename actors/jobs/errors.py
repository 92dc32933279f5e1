"""What jobs raise beside the general errors.

OrchestraError
├── InvalidRequest
│   ├── NoSuchJob             404  no_such_job
│   └── KeyReused             409  idempotency_key_reused
└── Overloaded
    └── TooManyJobs           429  too_many_jobs
"""

from __future__ import annotations

from orchestration.errors import InvalidRequest, Overloaded

RETRY_S = 5.0
"""When to come back after a limit that frees up as jobs end, which nobody can foretell."""


class NoSuchJob(InvalidRequest):
    status = 404
    code = "no_such_job"

    @classmethod
    def of(cls, job_id: str) -> NoSuchJob:
        return cls(f"no job {job_id[:80]!r}; it may have expired", param="id")


class KeyReused(InvalidRequest):
    """The idempotency key belongs to a job with another body."""

    status = 409
    code = "idempotency_key_reused"


class TooManyJobs(Overloaded):
    """The caller has as many jobs that have not ended as its limit allows."""

    code = "too_many_jobs"

    @classmethod
    def of(cls, caller: str, max_unfinished: int) -> TooManyJobs:
        return cls(
            f"{max_unfinished} jobs of caller {caller!r} have not ended, which is unfinished_jobs",
            retry_after_s=RETRY_S,
        )
