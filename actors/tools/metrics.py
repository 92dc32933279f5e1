"""Metrics of tools."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from actors.telemetry.labels import TOOLS

_USES = Counter("orchestra_tool_uses", "Uses of tools that ended", ["tool", "outcome"])
_SECONDS = Histogram(
    "orchestra_tool_seconds",
    "Time in seconds that the use of a tool took",
    ["tool"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)


def count_use(tool: str, outcome: str, seconds: float) -> None:
    """Count the use of a tool that a role has; it ended with `ok`, `error`, `timeout` or an error's code."""
    label = TOOLS.of(tool)
    _USES.labels(label, outcome).inc()
    _SECONDS.labels(label).observe(seconds)
