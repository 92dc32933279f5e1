"""Responses from the cache, from an equal request in progress, or from a new generation."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from actors.cluster.orders import OrderBook
from actors.gateway.admitted_request import AdmittedRequest
from actors.gateway.authentication import Authenticator
from actors.gateway.bodies import CacheOptions
from actors.gateway.choices import merge_choices
from actors.gateway.metered_client import MeteredClient
from actors.gateway.metrics import CACHE
from actors.gateway.request_coalescer import RequestCoalescer, SharedStream
from actors.gateway.request_log import RequestOutcome
from actors.gateway.response_cache import ResponseCache
from actors.gateway.settings import GatewaySettings
from actors.openai_api.encoder import ChoiceEvent
from actors.runtime.envelope import Envelope
from orchestration.messages import Run, StreamEvent, Work
from orchestration.response_cache import fingerprint, is_deterministic
from orchestration.virtual_models import PATTERN_PREFIX

_COUNTERS = {origin: CACHE.labels(origin) for origin in ("hit", "shared", "miss")}


class Response:
    """The events of one response, to be iterated once.

    `origin` is `hit` (cached), `shared` (an equal request was in progress), `miss` (generated now), or ''
    for a request that is not cached. It is known after `start`.
    """

    __slots__ = ("_first", "_outcome", "events", "origin")

    def __init__(self, outcome: RequestOutcome) -> None:
        self.origin = ""
        self._outcome = outcome
        self.events: AsyncGenerator[StreamEvent | ChoiceEvent, None]
        self._first: StreamEvent | ChoiceEvent | None = None

    async def start(self) -> None:
        """Wait for the first event, if any. Raises what the events raise."""
        self._first = await anext(self.events, None)
        if self._first is not None:
            self._outcome.observe(self._first)

    def __aiter__(self) -> Response:
        return self

    async def __anext__(self) -> StreamEvent | ChoiceEvent:
        if self._first is not None:
            event, self._first = self._first, None
            return event
        event = await self.events.__anext__()
        self._outcome.observe(event)
        return event


class CachedResponses:
    """The cache and the coalescer round a `MeteredClient`."""

    def __init__(
        self,
        client: MeteredClient,
        authenticator: Authenticator,
        settings: GatewaySettings,
        orders: OrderBook,
    ) -> None:
        self.orders = orders
        self.client = client
        self.authenticator = authenticator
        self.settings = settings
        self.cache = ResponseCache(client.client.bus, settings.cache)
        self.coalescer = RequestCoalescer(
            max_stream_bytes=settings.cache.max_shared_stream_bytes,
            max_total_bytes=settings.cache.max_shared_streams_bytes,
        )

    def update_settings(self, settings: GatewaySettings) -> None:
        """Take other settings. Cached responses keep their expiry, unless they do not fit any more."""
        self.settings = settings
        self.cache.update_settings(settings.cache)
        self.coalescer.max_stream_bytes = settings.cache.max_shared_stream_bytes
        self.coalescer.max_total_bytes = settings.cache.max_shared_streams_bytes

    async def stop(self) -> None:
        """Cancel the generations that requests share."""
        await self.coalescer.stop()

    def open(self, request: AdmittedRequest, envelope: Envelope) -> Response:
        """Close its `events`; that cancels what no other request needs. They raise what
        `MeteredClient.stream` raises. A cached or shared response uses no tokens."""
        response = Response(request.outcome)
        works = (request.work, *request.others)
        choices = [self._events(response, work, request.cache, envelope) for work in works]
        response.events = merge_choices(choices) if request.others else choices[0]
        return response

    def _events(
        self, response: Response, work: Work, options: CacheOptions, envelope: Envelope
    ) -> AsyncGenerator[StreamEvent, None]:
        if not self._is_cached(work, options):
            return self.client.stream(work, envelope)
        return self._cached(response, work, options, envelope)

    def _is_cached(self, work: Work, options: CacheOptions) -> bool:
        if not self.settings.cache.enabled or options.no_store or options.ttl == 0:
            return False
        return options.force or is_deterministic(work)

    def _max_age_s(self, work: Work, namespace: str, options: CacheOptions) -> float | None:
        """The maximum age of a response: as the request says, and none from before a clear."""
        cleared_at = self.orders.cleared_at(cached_model(work), namespace)
        if not cleared_at:
            return options.ttl
        since_s = max(0.0, time.time() - cleared_at)
        return since_s if options.ttl is None else min(options.ttl, since_s)

    async def _cached(
        self, response: Response, work: Work, options: CacheOptions, envelope: Envelope
    ) -> AsyncGenerator[StreamEvent, None]:
        namespace = self.authenticator.namespace(envelope.caller)
        key = fingerprint(work, namespace)
        cached = self.cache.local(key, self._max_age_s(work, namespace, options))
        if cached is not None:
            response.origin = "hit"
            _COUNTERS["hit"].inc()
            for event in cached:
                yield event
            return
        remaining_s = envelope.remaining(self.settings.request_timeout_s)
        stream_key = f"{key}.{work.priority}"  # an interactive request does not wait in the batch queue

        def join_or_begin() -> tuple[SharedStream, str]:
            shared = self.coalescer.find(stream_key)
            if shared is not None:
                return shared, "shared"
            return self._begin(key, stream_key, work, options, envelope), "miss"

        shared, origin = await self.client.shared_limits.acquire(join_or_begin)
        async with aclosing(self.coalescer.follow(shared, remaining_s)) as events:
            async for event in events:
                if not response.origin:
                    response.origin = "hit" if shared.cached else origin
                    _COUNTERS[response.origin].inc()
                yield event

    def _begin(
        self,
        key: str,
        stream_key: str,
        work: Work,
        options: CacheOptions,
        envelope: Envelope,
    ) -> SharedStream:
        """Begin a generation that others may join. It has the longest deadline; followers keep their own."""
        settings = self.settings
        ttl_s = settings.cache.ttl_s if options.ttl is None else min(options.ttl, settings.cache.max_ttl_s)
        reservation = self.client.reserve_here(work, envelope.caller)
        shared_work = work if isinstance(work, Run) else work.model_copy(update={"streamed": True})
        longest = Envelope.within(settings.request_timeout_s, trace=envelope.trace, caller=envelope.caller)

        async def source(shared: SharedStream) -> AsyncGenerator[StreamEvent, None]:
            namespace = self.authenticator.namespace(envelope.caller)
            cached = await self.cache.shared(key, self._max_age_s(work, namespace, options))
            if cached is not None:
                shared.cached = True
                for event in cached:
                    yield event
                return
            async with aclosing(self.client.client.stream(shared_work, longest)) as events:
                async for event in events:
                    reservation.observe(event)
                    yield event
            complete = shared.buffer.items()
            if complete is not None:
                self.cache.store(key, complete, ttl_s)

        return self.coalescer.begin(stream_key, source, reservation.settle)


def cached_model(work: Work) -> str:
    """The model of cached responses, as a client names it."""
    return f"{PATTERN_PREFIX}{work.pattern}" if isinstance(work, Run) else work.model
