"""The core of a gateway, for HTTP and NATS: admits a request and streams its response."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from actors.bus.bus import Bus
from actors.bus.storage import StorageMonitor
from actors.cluster.registry import Registry
from actors.gateway.active_requests import ActiveRequests, RequestsOnNodes, request_stages
from actors.gateway.admitted_request import AdmittedRequest
from actors.gateway.authentication import Authenticator
from actors.gateway.cached_responses import CachedResponses, Response
from actors.gateway.commands import GatewayCommands
from actors.gateway.limit_use import limit_use
from actors.gateway.metered_client import MeteredClient
from actors.gateway.model_resolver import ModelResolver
from actors.gateway.request_span import record_admission
from actors.gateway.settings import GatewaySettings
from actors.gateway.shared_limits import SharedLimits
from actors.gateway.token_reservation import TokenReservation
from actors.runtime.envelope import Envelope
from actors.streams.client import StreamClient
from actors.telemetry.tracing import recorded_trace_id, tracing
from orchestration.errors import BusUnavailable, DeadlineExceeded, Unavailable
from orchestration.limits import Permit, QuotaLimit, RateLimiter
from orchestration.messages import Run, Work
from orchestration.patterns import BUILT_IN, Catalogue


class Gateway:
    """Start `streams` and `registry` before use."""

    def __init__(
        self,
        bus: Bus,
        streams: StreamClient,
        registry: Registry,
        settings: GatewaySettings,
        catalogue: Catalogue = BUILT_IN,
    ) -> None:
        self.bus = bus
        self.streams = streams
        self.registry = registry
        self.settings = settings
        self.resolver = ModelResolver(registry, settings.wait_for_node_s, catalogue)
        self.authenticator = Authenticator(settings.callers)
        self.limits = limits_of(settings)
        self.shared_limits = SharedLimits(bus, self.limits)
        self.client = MeteredClient(streams, self.limits, self.shared_limits, settings.limits.assumed_tokens)
        self.responses = CachedResponses(self.client, self.authenticator, settings, registry.orders)
        self.storage = StorageMonitor(bus)
        self.commands = GatewayCommands(bus, self.responses.cache, registry.orders)
        placed = streams.direct if isinstance(streams.direct, RequestsOnNodes) else None
        self.active = ActiveRequests(streams, placed)
        self.draining = False
        self.runs: dict[str, str] = {}
        """The caller of each run in flight, by the run's id."""

    @property
    def in_flight(self) -> int:
        """Requests in flight, over HTTP and NATS."""
        return self.limits.in_flight

    def update_settings(self, settings: GatewaySettings) -> None:
        """Take other settings. Requests in flight keep their timeouts and permits; a key that is gone and a
        lower limit hold for the next request."""
        self.settings = settings
        self.resolver.wait_for_node_s = settings.wait_for_node_s
        self.authenticator.update_settings(settings.callers)
        total, each, named = _quota_limits(settings)
        self.limits.change_limits(
            total,
            each,
            named,
            here=QuotaLimit(requests_in_flight=settings.max_in_flight),
            now=time.monotonic(),
            sharing=self.shared_limits.sharing,
        )
        self.shared_limits.limits_changed()
        self.client.assumed_tokens = settings.limits.assumed_tokens
        self.responses.update_settings(settings)

    async def start(self) -> None:
        """Join the gateways that share limits, and start to monitor the disk."""
        request_stages.active.append(self.active)
        limit_use.gateways.append(self)
        await self.storage.start()
        await self.shared_limits.start()
        await self.commands.start()

    async def stop(self) -> None:
        """Cancel shared generations, and leave the gateways that share limits."""
        await self.commands.stop()
        await self.storage.stop()
        await self.responses.stop()
        await self.shared_limits.stop()
        if self in limit_use.gateways:
            request_stages.active.remove(self.active)
            limit_use.gateways.remove(self)

    def missing(self) -> list[str]:
        """Return the reasons why this gateway cannot answer now; empty if it is ready."""
        if self.draining:
            return ["the gateway is shutting down"]
        if not self.bus.connected:
            return [f"NATS at {self.bus.settings.url} is not reachable"]
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
            raise BusUnavailable(f"NATS at {self.bus.settings.url} is not reachable", retry_after_s=1)
        self.storage.check()

    @asynccontextmanager
    async def respond(self, request: AdmittedRequest, envelope: Envelope) -> AsyncIterator[Response]:
        """Admit a request, wait for its first event, and yield the response; leaving the block before its
        end cancels the work. The request's encoder knows the trace and the origin of the response then.

        Raises `LimitExceeded` at a limit, `Unavailable` while draining, and what the work ended with.
        """
        asked = time.perf_counter()
        permit = await self._acquire(envelope)
        request.outcome.admitted_s = time.perf_counter() - asked
        if isinstance(request.work, Run):
            self.runs[request.work.id] = envelope.caller
        self.active.admitted(request.work.id)
        response = self.responses.open(request, envelope)
        try:
            async with aclosing(response.events):
                try:
                    await response.start()
                except DeadlineExceeded as error:
                    raise self.resolver.missed_deadline(request.work, error) from error
                permit.mark_started()
                self.active.streaming(request.work.id)
                request.outcome.cache = response.origin
                request.outcome.reader = self.streams.readers.get(request.work.id)
                request.encoder.describe(recorded_trace_id(envelope.trace), response.origin)
                yield response
        finally:
            self.runs.pop(request.work.id, None)
            permit.release()

    async def full(self, request: AdmittedRequest, envelope: Envelope) -> tuple[str, bytes]:
        """The origin of the response, and the complete response as one JSON object. Cancelling the call
        cancels the work; raises like `respond`."""
        async with self.respond(request, envelope) as response:
            async for event in response:
                request.encoder.add(event)
        return response.origin, request.encoder.encode_full()

    async def reserve_tokens(self, work: Work, envelope: Envelope) -> TokenReservation:
        """Reserve the tokens of work that is done elsewhere. Raises `LimitExceeded`, `TooManyTokens`."""
        return await self.client.reserve(work, envelope.caller)

    async def _acquire(self, envelope: Envelope) -> Permit:
        self.check_available()
        began_ns = 0 if tracing.tracer is None else time.time_ns()
        permit = await self.shared_limits.acquire(
            lambda: self.limits.acquire(envelope.caller, time.monotonic())
        )
        if began_ns:
            record_admission(envelope.trace, began_ns)
        return permit


def limits_of(settings: GatewaySettings) -> RateLimiter:
    """Return the limits of the settings, without any use."""
    total, each, named = _quota_limits(settings)
    return RateLimiter(
        total,
        each,
        named,
        now=time.monotonic(),
        here=QuotaLimit(requests_in_flight=settings.max_in_flight),
        here_names={"requests_in_flight": "max_in_flight"},
    )


def _quota_limits(settings: GatewaySettings) -> tuple[QuotaLimit, QuotaLimit, dict[str, QuotaLimit]]:
    """The limits of all callers together, of each caller, and of named ones."""
    limits = settings.limits
    total = QuotaLimit(
        requests_in_flight=limits.requests_in_flight,
        queue_depth=limits.queue_depth,
        tokens_per_minute=limits.tokens_per_minute,
    )
    return (
        total,
        limits.per_caller.limit(),
        {name: settings.limits_of(name).limit() for name in settings.callers},
    )
