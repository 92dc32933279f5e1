"""What jobs raise beside the general errors.

OrchestraError
└── InvalidRequest
    ├── NoSuchJob             404  no_such_job
    └── KeyReused             409  idempotency_key_reused
"""

from __future__ import annotations

from orchestration.errors import InvalidRequest


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
