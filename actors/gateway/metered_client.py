"""Asks for generations and runs, and counts their tokens against the caller's limits."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from actors.gateway.shared_limits import SharedLimits
from actors.gateway.token_reservation import TokenReservation
from actors.runtime.envelope import Envelope
from actors.streams.client import StreamClient
from orchestration.limits import RateLimiter, TokenEstimates
from orchestration.messages import StreamEvent, Work


class MeteredClient:
    """`assumed_tokens` are reserved for an answer without `max_tokens`."""

    def __init__(
        self, client: StreamClient, limits: RateLimiter, shared_limits: SharedLimits, assumed_tokens: int
    ) -> None:
        self.client = client
        self.limits = limits
        self.shared_limits = shared_limits
        self.assumed_tokens = assumed_tokens
        self.estimates = TokenEstimates()

    def stream(self, work: Work, envelope: Envelope) -> AsyncGenerator[StreamEvent, None]:
        """The events of `work`; closing the generator cancels it.

        Raises `LimitExceeded` and `TooManyTokens` for tokens, and what `StreamClient.stream` raises.
        """
        if self.limits.most_tokens(envelope.caller, time.monotonic()) is None:
            return self.client.stream(work, envelope)
        return self._metered(work, envelope)

    async def _metered(self, work: Work, envelope: Envelope) -> AsyncGenerator[StreamEvent, None]:
        reservation = await self.reserve(work, envelope.caller)
        try:
            async with aclosing(self.client.stream(work, envelope)) as events:
                async for event in events:
                    reservation.observe(event)
                    yield event
        finally:
            reservation.settle()

    async def reserve(self, work: Work, caller: str) -> TokenReservation:
        """Reserve the tokens of `work`, drawing quota of other gateways if needed. Raises `LimitExceeded`
        and `TooManyTokens`."""
        return await self.shared_limits.acquire(lambda: self.reserve_here(work, caller))

    def reserve_here(self, work: Work, caller: str) -> TokenReservation:
        """Reserve them from the quota of this gateway. Raises like `reserve`."""
        return TokenReservation(self.limits, self.estimates, caller, work, self.assumed_tokens)
