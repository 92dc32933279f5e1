"""Metrics of traces and logs on their way to a collector."""

from __future__ import annotations

from prometheus_client import Counter

DROPPED = Counter(
    "orchestra_telemetry_dropped",
    "Spans and log records that did not reach the collector, by signal and reason",
    ["signal", "reason"],
)
EXPORTED = Counter(
    "orchestra_telemetry_exported", "Spans and log records that the collector accepted", ["signal"]
)
TAIL = Counter(
    "orchestra_telemetry_tail",
    "Traces that were left out at first, by what became of them",
    ["outcome"],
)
RECORDS_LEFT_OUT = Counter(
    "orchestra_telemetry_records_left_out",
    "Records of Python's logging beyond `logs.records_per_minute`, which became no events",
)
