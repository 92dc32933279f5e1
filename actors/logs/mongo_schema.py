"""The collections of the log in MongoDB: documents, indexes, and the roll-ups of a minute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestration.log_events import LogEvent

EVENTS = "events"
ROLLUPS = "rollups"
PENDING = "rollups_pending"
"""Minutes with events that their roll-ups may not have yet."""

_INDEXED = ("run", "step", "trace", "caller", "model", "node", "pattern", "process", "role", "host")


@dataclass(frozen=True, slots=True)
class SchemaIndex:
    """One index. With `only` it has the documents that have this field; with `expires` it is the TTL."""

    name: str
    keys: tuple[tuple[str, int], ...]
    only: str = ""
    expires: bool = False

    def options(self, lifetime_s: int) -> dict[str, Any]:
        """The options for its creation."""
        options: dict[str, Any] = {"name": self.name}
        if self.only:
            options["partialFilterExpression"] = {self.only: {"$exists": True}}
        if self.expires:
            options["expireAfterSeconds"] = lifetime_s
        return options


EVENT_INDEXES = (
    SchemaIndex("expiry", (("at", 1),), expires=True),
    SchemaIndex("run", (("run", 1), ("time", 1)), only="run"),
    SchemaIndex("trace", (("trace", 1), ("time", 1)), only="trace"),
    SchemaIndex("level", (("level", 1), ("time", -1))),
    SchemaIndex("caller", (("caller", 1), ("time", -1)), only="caller"),
)
ROLLUP_INDEXES = (
    SchemaIndex("expiry", (("minute", 1),), expires=True),
    SchemaIndex("model", (("model", 1), ("minute", -1))),
    SchemaIndex("node", (("node", 1), ("minute", -1))),
)


def document_of(event: LogEvent) -> dict[str, Any]:
    """The document of an event: `at` is a date, for the TTL, and `time` has all digits. Empty fields are
    absent."""
    document: dict[str, Any] = {
        "_id": event.id,
        "at": datetime.fromtimestamp(max(0.0, min(event.at, 4e9)), UTC),
        "time": event.at,
        "kind": event.name.partition(".")[0],
        "name": event.name,
        "level": event.level.value,
    }
    document |= {name: value for name in _INDEXED if (value := getattr(event, name))}
    if event.message:
        document["message"] = event.message
    if event.data:
        document["data"] = event.data
    return document


def _sum(name: str, event: str) -> dict[str, Any]:
    value = {"$ifNull": [f"$data.{name}", 0]}
    return {"$sum": {"$cond": [{"$eq": ["$name", event]}, value, 0]}}


def _count(event: str, *conditions: Mapping[str, Any]) -> dict[str, Any]:
    return {"$sum": {"$cond": [{"$and": [{"$eq": ["$name", event]}, *conditions]}, 1, 0]}}


GENERATION, REQUEST = "generation.ended", "request.ended"
ROLLUP_STAGES: tuple[dict[str, Any], ...] = (
    {"$match": {"name": {"$in": [GENERATION, REQUEST]}}},
    {
        "$group": {
            "_id": {"node": "$node", "model": "$model"},
            "generations": _count(GENERATION),
            "generation_errors": _count(GENERATION, {"$ne": ["$data.outcome", "ok"]}),
            "input_tokens": _sum("input_tokens", GENERATION),
            "output_tokens": _sum("output_tokens", GENERATION),
            "cached_tokens": _sum("cached_tokens", GENERATION),
            "moves": _sum("moves", GENERATION),
            "duration_s": _sum("duration_s", GENERATION),
            "queue_s": _sum("queue_s", GENERATION),
            "requests": _count(REQUEST),
            "request_errors": _count(REQUEST, {"$gte": ["$data.status", 500]}),
            "request_duration_s": _sum("duration_s", REQUEST),
            "first_tokens": _count(REQUEST, {"$gt": ["$data.time_to_first_token_s", 0]}),
            "time_to_first_token_s": _sum("time_to_first_token_s", REQUEST),
        }
    },
)
"""Computes the roll-ups of the events that come in. Times are sums in seconds."""


def rollup_document(minute: datetime, group: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The `_id` and the absolute values of one roll-up."""
    key = group["_id"]
    node, model = key.get("node") or "", key.get("model") or ""
    values = {name: value for name, value in group.items() if name != "_id"}
    return f"{minute:%Y-%m-%dT%H:%M}/{node}/{model}", {
        "minute": minute,
        "node": node,
        "model": model,
    } | values
