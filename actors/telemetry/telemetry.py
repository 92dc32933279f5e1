"""Metrics of the bus and of actors. Names follow Prometheus' conventions."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

BUS_RECONNECTS = Counter("orchestra_bus_reconnects", "Reconnects to NATS")
BUS_DENIED = Counter("orchestra_bus_denied_publishes", "Publishes and subscriptions that NATS denied")
BUS_UNREADABLE = Counter(
    "orchestra_bus_unreadable",
    "Messages dropped: their subject or reply subject is not UTF-8, has control characters, or is too long",
)
BUS_SLOW_CONSUMER = Counter("orchestra_bus_slow_consumer", "Messages dropped because a handler was too slow")
ACTOR_MESSAGES = Counter(
    "orchestra_actor_messages", "Messages handled by actors", ["actor", "message", "outcome"]
)
ACTOR_SECONDS = Histogram(
    "orchestra_actor_message_seconds",
    "Time in seconds that a handler took for a message",
    ["actor", "message"],
)
INTERNAL_ERRORS = Counter(
    "orchestra_internal_errors", "Unexpected exceptions, by the place in the code", ["where"]
)
ACTOR_RESTARTS = Counter("orchestra_actor_restarts", "Restarts by the supervisor", ["actor"])
ACTORS_FAILED = Gauge(
    "orchestra_actors_failed", "Actors that crashed too often and were not restarted again", ["actor"]
)
MAILBOX_REFUSED = Counter("orchestra_mailbox_refused", "Messages refused by a full mailbox", ["actor"])
