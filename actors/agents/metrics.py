"""Metrics of the agents."""

from __future__ import annotations

from collections.abc import Container

from prometheus_client import Counter, Gauge, Histogram

from orchestration.messages import Work

RUNS = Counter("orchestra_runs", "Runs ended", ["pattern", "outcome"])
RUN_SECONDS = Histogram(
    "orchestra_run_seconds",
    "Time in seconds from the queue to the end of a run",
    ["pattern"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
RUNS_IN_PROGRESS = Gauge("orchestra_runs_in_progress", "Runs in progress in this process", ["priority"])
STEPS_RECORDED = Counter(
    "orchestra_steps_recorded",
    "Finished steps in the bucket steps: written, read by a coordinator that resumes the run, or failed",
    ["outcome"],
)
STEPS = Counter("orchestra_steps", "Steps of runs finished", ["agent", "outcome"])


def pattern_label(work: Work, known: Container[str]) -> str:
    """The pattern's name, `none` for a generation. Names that callers make up are all `unknown`, so that they
    cannot grow the metrics."""
    if work.kind != "run":
        return "none"
    return work.pattern if work.pattern in known else "unknown"
