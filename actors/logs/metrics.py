"""Metrics of the central log."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

PUBLISHED = Counter("orchestra_log_events_published", "Events stored in the stream LOGS")
DROPPED = Counter(
    "orchestra_log_events_dropped",
    "Events lost in their process: no room while NATS was away (full), refused by the stream (refused), not "
    "encodable (invalid), or not published before the process ended (shutdown)",
    ["reason"],
)
SHIPPED = Counter("orchestra_log_events_shipped", "Events written to MongoDB by this process")
REPEATED = Counter("orchestra_log_events_repeated", "Events that MongoDB had already when they were written")
RETRIES = Counter("orchestra_log_shipper_retries", "Writes to MongoDB that failed and were repeated")
DEAD = Counter("orchestra_log_events_dead", "Events that MongoDB refused for good: dead letters")
GAP_EVENTS = Counter("orchestra_log_gap_events", "Events that LOGS discarded before they were shipped")
LAG = Gauge("orchestra_log_shipper_lag_events", "Events in LOGS that no shipper has written yet")
CONNECTED = Gauge("orchestra_log_shipper_connected", "Whether the last write to MongoDB succeeded: 1 or 0")
WAITING = Gauge("orchestra_log_events_waiting", "Events of this process that NATS has not acknowledged yet")
for _reason in ("full", "refused", "invalid", "shutdown"):
    DROPPED.labels(_reason)
