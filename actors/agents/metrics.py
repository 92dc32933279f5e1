"""Metrics of the agents."""

from __future__ import annotations

from collections.abc import Container

from prometheus_client import Counter, Gauge, Histogram

from actors.telemetry.labels import AGENTS, OTHER, PATTERNS
from orchestration.messages import Usage, Work

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
_STEPS = Counter("orchestra_steps", "Steps of runs finished", ["agent", "outcome"])
_TOKENS = Counter(
    "orchestra_run_tokens",
    "Tokens that runs used, of all their steps; `cached` ones are among those of prompts",
    ["pattern", "direction"],
)


def pattern_label(work: Work, known: Container[str]) -> str:
    """The pattern's name, `none` for a generation. Names that callers make up are all `other`, so that they
    cannot grow the metrics."""
    if work.kind != "run":
        return "none"
    return PATTERNS.of(work.pattern) if work.pattern in known else OTHER


def count_step(agent: str, outcome: str) -> None:
    """Count a step that ended with `outcome`."""
    _STEPS.labels(AGENTS.of(agent), outcome).inc()


def count_tokens(pattern: str, usage: Usage) -> None:
    """Add the usage of a run or job that ended; `pattern` is its `pattern_label`."""
    _TOKENS.labels(pattern, "prompt").inc(usage.prompt_tokens)
    _TOKENS.labels(pattern, "completion").inc(usage.completion_tokens)
    _TOKENS.labels(pattern, "cached").inc(usage.cached_tokens)
