"""Reads what NATS servers tell a process about the messages that it sent for traced requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from prometheus_client import Counter
from pydantic import ValidationError

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.message_traces import is_sampled
from actors.nats_monitor.message_records import MAX_RECORD_BYTES, MessageRecord, MessageSpan, message_span

log = logging.getLogger(__name__)

RECORDS = Counter(
    "orchestra_nats_trace_records",
    "Records of NATS servers about traced messages: `ok` is about a span of this process, `unknown` is not, "
    "`invalid` is no record, `limit` came beyond the limit",
    ["outcome"],
)


class MessageTraceListener:
    """Calls `take` with each span and the `traceparent` below which it belongs, at most `per_second` times a
    second; `take` returns whether it knows that."""

    def __init__(
        self, bus: Bus, subject: str, take: Callable[[MessageSpan, str], bool], *, per_second: int
    ) -> None:
        self.bus = bus
        self.subject = subject
        self.take = take
        self.per_second = per_second
        self._second = 0
        self._used = 0
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(self.subject, self._received)

    async def stop(self) -> None:
        """Take what servers have sent so far, and stop."""
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
            span = message_span(record)
        except (ValidationError, ValueError, OverflowError) as error:
            log.debug("a record of a traced message cannot be read: %s", error)
            return "invalid"
        return "ok" if self.take(span, parent) else "unknown"
