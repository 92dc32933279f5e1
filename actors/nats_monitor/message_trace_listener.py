"""Makes spans of what NATS servers tell about the messages of traced requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from prometheus_client import Counter
from pydantic import ValidationError

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.message_traces import is_sampled
from actors.bus.subjects import MESSAGE_TRACES_SUBJECT
from actors.nats_monitor.advisories import GROUP
from actors.nats_monitor.message_records import MAX_RECORD_BYTES, MessageRecord, MessageSpan, message_span
from actors.telemetry.tracing import start_span

log = logging.getLogger(__name__)

RECORDS = Counter(
    "orchestra_nats_trace_records",
    "Records of NATS servers about traced messages: `ok` became a span, `nobody` asked whether anyone is "
    "there, `invalid` is no record, `limit` came beyond the limit",
    ["outcome"],
)


class MessageTraceListener:
    """Calls `export` with each span and the `traceparent` below which it belongs, at most `per_second` times
    a second. All listeners of the cluster share the records."""

    def __init__(self, bus: Bus, export: Callable[[MessageSpan, str], None], *, per_second: int) -> None:
        self.bus = bus
        self.export = export
        self.per_second = per_second
        self._second = 0
        self._used = 0
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(MESSAGE_TRACES_SUBJECT, self._received, queue=GROUP)

    async def stop(self) -> None:
        if self._subscription is not None:
            await self._subscription.drain()

    def _received(self, message: Message) -> None:
        RECORDS.labels(self._outcome(message)).inc()

    def _outcome(self, message: Message) -> str:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._used = second, 0
        if self._used >= self.per_second:
            return "limit"
        self._used += 1
        if len(message.data) > MAX_RECORD_BYTES:
            return "invalid"
        try:
            record = MessageRecord.model_validate_json(message.data)
            parent = record.traceparent
            if not is_sampled(parent):
                return "invalid"
            if record.found_nobody:
                return "nobody"
            span = message_span(record)
        except (ValidationError, ValueError, OverflowError) as error:
            log.debug("a record of a traced message cannot be read: %s", error)
            return "invalid"
        self.export(span, parent)
        return "ok"


def export_span(span: MessageSpan, parent: str) -> None:
    """Export a span of a server, and those below it."""
    opened = start_span(span.name, parent, span.attributes, began_ns=span.began_ns)
    for child in span.children:
        export_span(child, opened.traceparent)
    if span.error:
        opened.fail_as(span.error)
    opened.end(at_ns=span.ended_ns)
