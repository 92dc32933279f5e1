"""What a NATS server tells of one message that it was asked to trace, read as foreign data, and as spans.

The form of a record is that of NATS' ADR-41. Any process with access to NATS may send what looks like one, so
sizes, ids and texts are checked before anything is made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, Field

from actors.bus.declarations import shipped_declaration
from actors.bus.message_traces import TRACEPARENT
from actors.bus.subject_templates import OTHER, subject_template
from actors.telemetry import conventions as names
from actors.telemetry.tracing import Attributes
from orchestration.wire import Wire

MAX_RECORD_BYTES = 64 * 1024
"""Maximum size of a record; it has the headers of the message and one event per receiver."""
MAX_EVENTS = 256
MAX_NAMES = 8
"""Maximum number of receivers or servers that an attribute lists."""
HOP = "Nats-Trace-Hop"

Short = Annotated[str, Field(max_length=255)]
_CLIENT = 0
"""NATS' number for a connection of a client; the others are of servers."""
_REASONS = (
    ("publish denied", "permission_denied"),
    ("permissions violation", "permission_denied"),
    ("subscription denies", "permission_denied"),
    ("no echo", "no_echo"),
    ("closed", "receiver_closed"),
    ("slow", "receiver_slow"),
    ("maximum payload", "too_large"),
    ("does not support", "untraced"),
)
"""Values of `error.type`, by words in the texts of the server."""


class TraceServer(Wire):
    """The server that writes."""

    name: Short
    cluster: Short = ""


class TraceRequest(Wire):
    """The message."""

    header: dict[Short, list[Annotated[str, Field(max_length=1_000)]]] = Field(max_length=64)
    msgsize: int = Field(default=0, ge=0)


class TraceEvent(Wire):
    """One thing that the server did: `in`, `eg` (out), `js` (store), or a mapping, import or export."""

    type: Short
    ts: AwareDatetime
    kind: int = 0
    name: Short = ""
    subj: Annotated[str, Field(max_length=4_096)] = ""
    stream: Short = ""
    error: Annotated[str, Field(max_length=1_000)] = ""


class MessageRecord(Wire):
    """What one server did with one message."""

    server: TraceServer
    request: TraceRequest
    events: list[TraceEvent] = Field(min_length=1, max_length=MAX_EVENTS)

    @property
    def traceparent(self) -> str:
        return self._header(TRACEPARENT)

    @property
    def hop(self) -> str:
        """`2.1`: the first server that the second server of the first server's list sent it to. '' at the
        server where the message came in."""
        hop = self._header(HOP)
        return hop if hop.replace(".", "").isdigit() and len(hop) <= 64 else ""

    @property
    def template(self) -> str:
        """The template of the message's subject."""
        return subject_template(self.events[0].subj)

    def _header(self, name: str) -> str:
        for key, values in self.request.header.items():
            if key.lower() == name.lower() and values:
                return values[0]
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSpan:
    """A span that a record becomes. Times are Unix times in nanoseconds, by the clock of the server."""

    name: str
    began_ns: int
    ended_ns: int
    attributes: Attributes
    error: str = ""
    """Value of `error.type`; '': none."""
    children: tuple[MessageSpan, ...] = ()


def message_span(record: MessageRecord) -> MessageSpan:
    """The span of what the server did, and below it one for each stream that stored the message.

    Each server that the message crosses has a span directly below that of the sender: it begins when the
    server before it has ended, and a child has to lie inside its parent.
    """
    first, last = record.events[0], max(each.ts for each in record.events)
    return MessageSpan(
        name=f"route {record.template}",
        began_ns=_ns(first.ts),
        ended_ns=_ns(last),
        attributes=_attributes(record),
        error=_error(record),
        children=tuple(_stored(event, first.ts) for event in record.events if event.type == "js"),
    )


def _stored(event: TraceEvent, since: datetime) -> MessageSpan:
    known = event.stream in shipped_declaration().stream_names
    return MessageSpan(
        name=f"store {event.stream if known else OTHER}",
        began_ns=_ns(since),
        ended_ns=max(_ns(event.ts), _ns(since)),
        attributes={names.MESSAGING_SYSTEM: "nats", names.NATS_STREAM: event.stream},
        error="store_failed" if event.error else "",
    )


def _attributes(record: MessageRecord) -> Attributes:
    out = [each for each in record.events if each.type == "eg" and not each.error]
    receivers = [each.name for each in out if each.kind == _CLIENT]
    servers = [each.name for each in out if each.kind != _CLIENT]
    found: dict[str, str | int | list[str]] = {
        names.MESSAGING_SYSTEM: "nats",
        names.MESSAGING_OPERATION_NAME: "route",
        names.MESSAGING_TEMPLATE: record.template,
        names.MESSAGING_SIZE: record.request.msgsize,
        names.NATS_SERVER: record.server.name,
        names.NATS_CLUSTER: record.server.cluster,
        names.NATS_HOP: record.hop,
        names.NATS_SENDER: record.events[0].name,
        names.NATS_RECEIVERS: receivers[:MAX_NAMES],
        names.NATS_RECEIVER_COUNT: len(receivers),
        names.NATS_FORWARDED_TO: servers[:MAX_NAMES],
    }
    return {name: value for name, value in found.items() if value != "" and value != []}


def _error(record: MessageRecord) -> str:
    """Why the server dropped the message, or did not deliver it to everyone."""
    for event in record.events:
        if event.error:
            text = event.error.lower()
            reason = next((reason for words, reason in _REASONS if words in text), "dropped")
            return "store_failed" if event.type == "js" else reason
    return "" if len(record.events) > 1 else "no_interest"


def _ns(at: datetime) -> int:
    return round(at.timestamp() * 1e6) * 1000
