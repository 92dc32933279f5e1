"""What both faces share: admit a request, hold its stream, shape its answer."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from actors.bus.bus import Bus
from actors.bus.storage import StorageMonitor
from actors.cluster.registry import Registry
from actors.gateway.answers import Answers
from actors.gateway.authentication import Authenticator
from actors.gateway.metrics import ANSWER_SECONDS, FIRST_EVENT_SECONDS, IN_FLIGHT, WAITING
from actors.gateway.model_resolver import ModelResolver
from actors.gateway.requests import AdmittedRequest
from actors.gateway.settings import GatewaySettings
from actors.gateway.shared_limits import SharedLimits
from actors.openai_api.encoder import Event
from actors.runtime.envelope import Envelope
from actors.streams.client import Asker
from actors.telemetry.telemetry import recorded_trace_id
from orchestration.errors import BusUnavailable, DeadlineExceeded, Unavailable
from orchestration.limits import Permit, QuotaLimit, RateLimiter
from orchestration.messages import Run
from orchestration.patterns import BUILT_IN, Catalogue


class Gateway:
    """Start `asker` and `registry` before use."""

    def __init__(
        self,
        bus: Bus,
        asker: Asker,
        registry: Registry,
        settings: GatewaySettings,
        catalogue: Catalogue = BUILT_IN,
    ) -> None:
        self.bus = bus
        self.asker = asker
        self.registry = registry
        self.settings = settings
        self.resolver = ModelResolver(registry, settings.wait_for_node_s, catalogue)
        self.authenticator = Authenticator(settings.callers)
        self.limits = limits_of(settings)
        self.shared_limits = SharedLimits(bus, self.limits)
        self.answers = Answers(asker, self.limits, self.shared_limits, self.authenticator, settings)
        self.storage = StorageMonitor(bus)
        self.draining = False
        self.runs: dict[str, str] = {}
        """Runs whose answers are held here, and their callers."""

    @property
    def in_flight(self) -> int:
        """Requests at work now, over all faces."""
        return self.limits.in_flight

    async def start(self) -> None:
        """Share limits with the gateways that are there, and hear of full disks."""
        await self.storage.start()
        await self.shared_limits.start()

    async def stop(self) -> None:
        """End what is still at work for others."""
        await self.storage.stop()
        await self.answers.stop()
        await self.shared_limits.stop()

    def missing(self) -> list[str]:
        """What keeps this gateway from answering now; empty when it is ready."""
        if self.draining:
            return ["the gateway is shutting down"]
        if not self.bus.connected:
            return [f"NATS at {self.bus.settings.url} is away"]
        if self.storage.problem:
            return [self.storage.problem]
        if not self.resolver.cards:
            return ["no node that serves a model is alive"]
        return []

    def check_available(self) -> None:
        """Raise `Unavailable` when no chat and no job can be accepted now."""
        if self.draining:
            raise Unavailable("the gateway is shutting down", retry_after_s=1)
        if not self.bus.connected:
            raise BusUnavailable(f"NATS at {self.bus.settings.url} is away", retry_after_s=1)
        self.storage.check()

    async def pieces(self, request: AdmittedRequest, envelope: Envelope) -> AsyncGenerator[bytes, None]:
        """The answer as JSON objects, as they come. Use it under `contextlib.aclosing`: closing it
        before the end cancels the work.

        Raises `OverLimit` at a limit, `Unavailable` while draining, and what the work ended with.
        """
        async with self._at_work(request, envelope) as (events, on_event):
            async for event in events:
                on_event()
                for data in request.encoder.encode_event(event):
                    yield data

    async def whole(self, request: AdmittedRequest, envelope: Envelope) -> bytes:
        """The complete answer as one JSON object. Cancelling the call cancels the work; raises like
        `pieces`."""
        async with self._at_work(request, envelope) as (events, on_event):
            async for event in events:
                on_event()
                request.encoder.add(event)
        return request.encoder.encode_full()

    @asynccontextmanager
    async def _at_work(
        self, request: AdmittedRequest, envelope: Envelope
    ) -> AsyncIterator[tuple[AsyncGenerator[Event, None], Callable[[], None]]]:
        """The events of an answer, which counts as at work meanwhile; call the second for each of them."""
        permit = await self._enter(request, envelope)
        if isinstance(request.work, Run):
            self.runs[request.work.id] = envelope.caller
        started = time.perf_counter()

        def on_event() -> None:
            if permit.waiting_for_first:
                permit.mark_started()
                WAITING.set(self.limits.waiting)
                FIRST_EVENT_SECONDS.observe(time.perf_counter() - started)

        try:
            async with aclosing(self.answers.events(request, envelope)) as events:
                yield events, on_event
            ANSWER_SECONDS.observe(time.perf_counter() - started)
        except DeadlineExceeded as error:
            if not permit.waiting_for_first:
                raise
            raise self.resolver.in_time(request.work, error) from error
        finally:
            self.runs.pop(request.work.id, None)
            permit.release()
            IN_FLIGHT.set(self.limits.in_flight)
            WAITING.set(self.limits.waiting)

    async def _enter(self, request: AdmittedRequest, envelope: Envelope) -> Permit:
        """Take a permit."""
        self.check_available()
        permit = await self.shared_limits.acquire(
            lambda: self.limits.acquire(envelope.caller, time.monotonic())
        )
        IN_FLIGHT.set(self.limits.in_flight)
        WAITING.set(self.limits.waiting)
        request.encoder.trace_id = recorded_trace_id(envelope.trace)
        return permit


def limits_of(settings: GatewaySettings) -> RateLimiter:
    """The limits that the settings set, all free."""
    limits = settings.limits
    total = QuotaLimit(
        requests_in_flight=limits.requests_in_flight,
        queue_depth=limits.queue_depth,
        tokens_per_minute=limits.tokens_per_minute,
    )
    named = {name: settings.limits_of(name).limit() for name in settings.callers}
    return RateLimiter(
        total,
        limits.per_caller.limit(),
        named,
        now=time.monotonic(),
        here=QuotaLimit(requests_in_flight=settings.max_in_flight),
        here_names={"requests_in_flight": "max_in_flight"},
    )
