"""Where an answer comes from: kept from before, shared with a generation at work, or made now."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from actors.gateway.authentication import Authenticator
from actors.gateway.choices import merge_choices
from actors.gateway.metrics import CACHE
from actors.gateway.request_coalescer import RequestCoalescer, SharedStream
from actors.gateway.requests import AdmittedRequest
from actors.gateway.response_cache import ResponseCache
from actors.gateway.settings import GatewaySettings
from actors.gateway.shared_limits import SharedLimits
from actors.gateway.token_reservation import TokenReservation
from actors.openai_api.encoder import ChoiceEvent
from actors.runtime.envelope import Envelope
from actors.streams.client import Asker
from orchestration.limits import RateLimiter, TokenEstimates
from orchestration.messages import Generation, Run, StreamEvent
from orchestration.response_cache import fingerprint, is_deterministic

_HIT, _SHARED, _MISS = (CACHE.labels(result) for result in ("hit", "shared", "miss"))


class Answers:
    """Ask for `events`; they set `cache` of the request's shape before the first one."""

    def __init__(
        self,
        asker: Asker,
        limits: RateLimiter,
        shared_limits: SharedLimits,
        authenticator: Authenticator,
        settings: GatewaySettings,
    ) -> None:
        self.asker = asker
        self.limits = limits
        self.shared_limits = shared_limits
        self.authenticator = authenticator
        self.settings = settings
        self.estimates = TokenEstimates()
        cache = settings.cache
        self.cache = ResponseCache(asker.bus, cache)
        self.coalescer = RequestCoalescer(
            max_stream_bytes=cache.max_shared_stream_bytes, max_total_bytes=cache.max_shared_streams_bytes
        )

    def events(
        self, request: AdmittedRequest, envelope: Envelope
    ) -> AsyncGenerator[StreamEvent | ChoiceEvent, None]:
        """The events of the answer, or of all; closing the iterator cancels what nobody else waits for.

        Raises `OverLimit` and `TooManyTokens` for tokens, and what `Asker.stream` raises. A kept or shared
        answer costs no tokens.
        """
        if request.others:
            works = (request.work, *request.others)
            return merge_choices(
                [self._one(replace(request, work=work, others=()), envelope) for work in works]
            )
        return self._one(request, envelope)

    def _one(self, request: AdmittedRequest, envelope: Envelope) -> AsyncGenerator[StreamEvent, None]:
        key = self._key(request, envelope.caller)
        if key is not None:
            return self._kept_or_shared(key, request, envelope)
        if self.limits.most_tokens(envelope.caller, time.monotonic()) is None:
            return self.asker.stream(request.work, envelope)
        return self._metered(request, envelope)

    async def stop(self) -> None:
        """End what is shared."""
        await self.coalescer.stop()

    def _key(self, request: AdmittedRequest, caller: str) -> str | None:
        """What the answer is kept under, or None for one that is not."""
        said = request.cache
        forced = False
        if said is not None:
            if said.no_store or said.ttl == 0:
                return None
            forced = said.force
        if not self.settings.cache.enabled or not (forced or is_deterministic(request.work)):
            return None
        return fingerprint(request.work, self.authenticator.namespace(caller))

    async def meter(self, work: Generation | Run, envelope: Envelope) -> TokenReservation:
        """Tokens reserved for `work`. Raises `OverLimit` and `TooManyTokens`."""
        return await self.shared_limits.acquire(partial(self._reserve, work, envelope.caller))

    def _reserve(self, work: Generation | Run, caller: str) -> TokenReservation:
        assumed = self.settings.limits.assumed_tokens
        return TokenReservation(self.limits, self.estimates, caller, work, assumed)

    async def _metered(
        self, request: AdmittedRequest, envelope: Envelope
    ) -> AsyncGenerator[StreamEvent, None]:
        """Settles at the end, whatever it is."""
        meter = await self.meter(request.work, envelope)
        try:
            async with aclosing(self.asker.stream(request.work, envelope)) as events:
                async for event in events:
                    meter.observe(event)
                    yield event
        finally:
            meter.settle()

    async def _kept_or_shared(
        self, key: str, request: AdmittedRequest, envelope: Envelope
    ) -> AsyncGenerator[StreamEvent, None]:
        max_age_s = None if request.cache is None else request.cache.ttl
        cached = self.cache.here(key, max_age_s)
        if cached is not None:
            request.encoder.cache = "hit"
            _HIT.inc()
            for event in cached:
                yield event
            return
        remaining_s = envelope.remaining(self.settings.request_timeout_s)
        # Who waits for an answer should not wait in the queue of someone who does not.
        at_work = f"{key}.{request.work.priority}"

        def found_or_begun() -> tuple[SharedStream, str]:
            shared = self.coalescer.find(at_work)
            if shared is not None:
                return shared, "shared"
            return self._begin(key, at_work, request, envelope), "miss"

        shared, came = await self.shared_limits.acquire(found_or_begun)
        first = True
        async with aclosing(self.coalescer.follow(shared, remaining_s)) as events:
            async for event in events:
                if first:
                    first = False
                    came = "hit" if shared.cached else came
                    request.encoder.cache = came
                    {"hit": _HIT, "shared": _SHARED, "miss": _MISS}[came].inc()
                yield event

    def _begin(self, key: str, at_work: str, request: AdmittedRequest, envelope: Envelope) -> SharedStream:
        """Have the answer made. Its own deadline is the longest there is: followers keep theirs."""
        said, settings = request.cache, self.settings
        max_age_s = None if said is None else said.ttl
        ttl_s = settings.cache.ttl_s if max_age_s is None else min(max_age_s, settings.cache.max_ttl_s)
        meter = self._reserve(request.work, envelope.caller)
        longest = Envelope.within(settings.request_timeout_s, trace=envelope.trace, caller=envelope.caller)

        async def source(shared: SharedStream) -> AsyncGenerator[StreamEvent, None]:
            cached = await self.cache.elsewhere(key, max_age_s)
            if cached is not None:
                shared.cached = True
                for event in cached:
                    yield event
                return
            async with aclosing(self.asker.stream(request.work, longest)) as events:
                async for event in events:
                    meter.observe(event)
                    yield event
            everything = shared.buffer.items()
            if everything is not None:
                self.cache.keep(key, everything, ttl_s)

        return self.coalescer.begin(at_work, source, meter.settle)
