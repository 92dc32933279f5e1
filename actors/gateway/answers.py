"""Where an answer comes from: kept from before, shared with a generation at work, or made now."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from actors.gateway.authentication import Callers
from actors.gateway.choices import merged
from actors.gateway.metrics import CACHE
from actors.gateway.request_coalescer import Flights, Shared
from actors.gateway.requests import Asked
from actors.gateway.response_cache import Kept
from actors.gateway.settings import GatewaySettings
from actors.gateway.shared_limits import Shares
from actors.gateway.token_reservation import Meter
from actors.openai_api.encoder import ChoiceEvent
from actors.runtime.envelope import Envelope
from actors.streams.client import Asker
from orchestration.limits import Limits, TokenEstimates
from orchestration.messages import Event, Generation, Run
from orchestration.response_cache import fingerprint, is_deterministic

_HIT, _SHARED, _MISS = (CACHE.labels(result) for result in ("hit", "shared", "miss"))


class Answers:
    """Ask for `events`; they set `cache` of the request's shape before the first one."""

    def __init__(
        self, asker: Asker, limits: Limits, shares: Shares, callers: Callers, settings: GatewaySettings
    ) -> None:
        self.asker = asker
        self.limits = limits
        self.shares = shares
        self.callers = callers
        self.settings = settings
        self.estimates = TokenEstimates()
        cache = settings.cache
        self.kept = Kept(asker.bus, cache)
        self.flights = Flights(flight_bytes=cache.flight_bytes, flights_bytes=cache.flights_bytes)

    def events(self, asked: Asked, envelope: Envelope) -> AsyncGenerator[Event | ChoiceEvent, None]:
        """The events of the answer, or of all; closing the iterator cancels what nobody else waits for.

        Raises `OverLimit` and `TooManyTokens` for tokens, and what `Asker.stream` raises. A kept or shared
        answer costs no tokens.
        """
        if asked.others:
            works = (asked.work, *asked.others)
            return merged([self._one(replace(asked, work=work, others=()), envelope) for work in works])
        return self._one(asked, envelope)

    def _one(self, asked: Asked, envelope: Envelope) -> AsyncGenerator[Event, None]:
        key = self._key(asked, envelope.caller)
        if key is not None:
            return self._kept_or_shared(key, asked, envelope)
        if self.limits.most_tokens(envelope.caller, time.monotonic()) is None:
            return self.asker.stream(asked.work, envelope)
        return self._metered(asked, envelope)

    async def stop(self) -> None:
        """End what is shared."""
        await self.flights.stop()

    def _key(self, asked: Asked, caller: str) -> str | None:
        """What the answer is kept under, or None for one that is not."""
        said = asked.cache
        forced = False
        if said is not None:
            if said.no_store or said.ttl == 0:
                return None
            forced = said.force
        if not self.settings.cache.enabled or not (forced or is_deterministic(asked.work)):
            return None
        return fingerprint(asked.work, self.callers.namespace(caller))

    async def meter(self, work: Generation | Run, envelope: Envelope) -> Meter:
        """Tokens reserved for `work`. Raises `OverLimit` and `TooManyTokens`."""
        return await self.shares.within(partial(self._reserve, work, envelope.caller))

    def _reserve(self, work: Generation | Run, caller: str) -> Meter:
        assumed = self.settings.limits.assumed_tokens
        return Meter(self.limits, self.estimates, caller, work, assumed)

    async def _metered(self, asked: Asked, envelope: Envelope) -> AsyncGenerator[Event, None]:
        """Settles at the end, whatever it is."""
        meter = await self.meter(asked.work, envelope)
        try:
            async with aclosing(self.asker.stream(asked.work, envelope)) as events:
                async for event in events:
                    meter.saw(event)
                    yield event
        finally:
            meter.settle()

    async def _kept_or_shared(
        self, key: str, asked: Asked, envelope: Envelope
    ) -> AsyncGenerator[Event, None]:
        max_age_s = None if asked.cache is None else asked.cache.ttl
        kept = self.kept.here(key, max_age_s)
        if kept is not None:
            asked.shape.cache = "hit"
            _HIT.inc()
            for event in kept:
                yield event
            return
        remaining_s = envelope.remaining(self.settings.request_timeout_s)
        # Who waits for an answer should not wait in the queue of someone who does not.
        at_work = f"{key}.{asked.work.priority}"

        def found_or_begun() -> tuple[Shared, str]:
            shared = self.flights.find(at_work)
            if shared is not None:
                return shared, "shared"
            return self._begin(key, at_work, asked, envelope), "miss"

        shared, came = await self.shares.within(found_or_begun)
        first = True
        async with aclosing(self.flights.follow(shared, remaining_s)) as events:
            async for event in events:
                if first:
                    first = False
                    came = "hit" if shared.kept else came
                    asked.shape.cache = came
                    {"hit": _HIT, "shared": _SHARED, "miss": _MISS}[came].inc()
                yield event

    def _begin(self, key: str, at_work: str, asked: Asked, envelope: Envelope) -> Shared:
        """Have the answer made. Its own deadline is the longest there is: followers keep theirs."""
        said, settings = asked.cache, self.settings
        max_age_s = None if said is None else said.ttl
        ttl_s = settings.cache.ttl_s if max_age_s is None else min(max_age_s, settings.cache.max_ttl_s)
        meter = self._reserve(asked.work, envelope.caller)
        longest = Envelope.within(settings.request_timeout_s, trace=envelope.trace, caller=envelope.caller)

        async def source(shared: Shared) -> AsyncGenerator[Event, None]:
            kept = await self.kept.elsewhere(key, max_age_s)
            if kept is not None:
                shared.kept = True
                for event in kept:
                    yield event
                return
            async with aclosing(self.asker.stream(asked.work, longest)) as events:
                async for event in events:
                    meter.saw(event)
                    yield event
            everything = shared.flight.everything()
            if everything is not None:
                self.kept.keep(key, everything, ttl_s)

        return self.flights.begin(at_work, source, meter.settle)
