"""Figures of jobs, as Prometheus has them."""

from __future__ import annotations

from prometheus_client import Counter

JOBS_SUBMITTED = Counter("orchestra_jobs_submitted", "Jobs accepted", ["priority"])
JOBS_ENDED = Counter("orchestra_jobs_ended", "Jobs settled", ["status"])
ATTEMPTS_FAILED = Counter("orchestra_job_attempts_failed", "Attempts that failed", ["code", "decision"])
DEAD_LETTERS = Counter("orchestra_dead_letters", "Messages given up", ["kind"])
WEBHOOKS = Counter("orchestra_webhooks", "Calls of webhooks", ["outcome"])
