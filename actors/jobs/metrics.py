"""Prometheus metrics of jobs."""

from __future__ import annotations

from prometheus_client import Counter

JOBS_SUBMITTED = Counter("orchestra_jobs_submitted", "Jobs accepted", ["priority"])
JOBS_ENDED = Counter("orchestra_jobs_ended", "Jobs ended", ["status"])
ATTEMPTS_FAILED = Counter(
    "orchestra_job_attempts_failed",
    "Failed attempts of jobs, by error code and by what follows",
    ["code", "decision"],
)
JOB_TOKENS = Counter(
    "orchestra_job_tokens",
    "Tokens of jobs that ended, as their results state them; `cached` ones are among those of prompts",
    ["direction"],
)
DEAD_LETTERS = Counter("orchestra_dead_letters", "Messages moved to the dead letters", ["kind"])
WEBHOOKS = Counter("orchestra_webhooks", "Webhook calls, by how they ended", ["outcome"])
