"""What both faces share: admit a request, hold its stream, shape its answer."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from actors.asker import Asker
from actors.gateway.admission import Admission
from actors.gateway.metrics import ANSWER_SECONDS, FIRST_EVENT_SECONDS, IN_FLIGHT
from actors.gateway.requests import Asked
from actors.gateway.settings import GatewaySettings
from actors.registry import Registry
from actors.runtime.bus import Bus
from actors.runtime.envelope import Envelope
from actors.runtime.telemetry import trace_id
from orchestration.errors import BusUnavailable, Refused, Unavailable


class Gateway:
    """Start `asker` and `registry` before use."""

    def __init__(self, bus: Bus, asker: Asker, registry: Registry, settings: GatewaySettings) -> None:
        self.bus = bus
        self.asker = asker
        self.registry = registry
        self.settings = settings
        self.admission = Admission(registry)
        self.in_flight = 0
        self.draining = False

    def missing(self) -> list[str]:
        """What keeps this gateway from answering now; empty when it is ready."""
        if self.draining:
            return ["the gateway is shutting down"]
        if not self.bus.connected:
            return [f"NATS at {self.bus.settings.url} is away"]
        if not self.admission.cards:
            return ["no node that serves a model is alive"]
        return []

    async def pieces(self, asked: Asked, envelope: Envelope) -> AsyncGenerator[bytes, None]:
        """The answer as JSON objects, as they come. Use it under `contextlib.aclosing`: closing it
        before the end cancels the work.

        Raises `Refused` at the limit, `Unavailable` while draining, and what the work ended with.
        """
        began = self._enter(asked, envelope)
        first = True
        try:
            async with aclosing(self.asker.stream(asked.work, envelope)) as events:
                async for event in events:
                    if first:
                        first = False
                        FIRST_EVENT_SECONDS.observe(time.perf_counter() - began)
                    for piece in asked.shape.piece(event):
                        yield piece
            ANSWER_SECONDS.observe(time.perf_counter() - began)
        finally:
            self._leave()

    async def whole(self, asked: Asked, envelope: Envelope) -> bytes:
        """The complete answer as one JSON object. Cancelling the call cancels the work; raises like
        `pieces`."""
        began = self._enter(asked, envelope)
        try:
            async with aclosing(self.asker.stream(asked.work, envelope)) as events:
                async for event in events:
                    asked.shape.add(event)
            ANSWER_SECONDS.observe(time.perf_counter() - began)
            return asked.shape.whole()
        finally:
            self._leave()

    def _enter(self, asked: Asked, envelope: Envelope) -> float:
        """Take one of the `max_in_flight` places; `_leave` gives it back. Returns the time of entry."""
        if self.draining:
            raise Unavailable("the gateway is shutting down", retry_after_s=1)
        if not self.bus.connected:
            raise BusUnavailable(f"NATS at {self.bus.settings.url} is away", retry_after_s=1)
        limit = self.settings.max_in_flight
        if self.in_flight >= limit:
            raise Refused(f"{limit} requests are at work, which is max_in_flight", retry_after_s=1)
        self.in_flight += 1
        IN_FLIGHT.inc()
        asked.shape.trace_id = trace_id(envelope.trace)
        return time.perf_counter()

    def _leave(self) -> None:
        self.in_flight -= 1
        IN_FLIGHT.dec()
