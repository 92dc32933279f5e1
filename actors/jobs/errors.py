"""Errors of jobs, beside the general ones.

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
"""Retry-After of a limit that frees up as jobs end, at times that cannot be predicted."""


class NoSuchJob(InvalidRequest):
    """There is no job with this id, it belongs to another caller, or it has expired."""

    status = 404
    code = "no_such_job"

    @classmethod
    def of(cls, job_id: str) -> NoSuchJob:
        return cls(f"no job {job_id[:80]!r}: it may have expired", param="id")


class KeyReused(InvalidRequest):
    """The idempotency key belongs to a job with another body."""

    status = 409
    code = "idempotency_key_reused"


class TooManyJobs(Overloaded):
    """The caller has reached its limit of unfinished jobs."""

    code = "too_many_jobs"

    @classmethod
    def of(cls, caller: str, max_unfinished: int) -> TooManyJobs:
        return cls(
            f"limit reached: caller {caller!r} has {max_unfinished} unfinished jobs (unfinished_jobs); "
            "submit again when one has ended",
            retry_after_s=RETRY_S,
        )
