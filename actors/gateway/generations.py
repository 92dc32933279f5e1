"""The hot HTTP routes: chats, completions and embeddings, complete or streamed."""

from __future__ import annotations

import math
from collections.abc import Callable

from actors.gateway.admitted_request import AdmittedRequest
from actors.gateway.disconnect_monitor import DisconnectMonitor, StreamMonitor
from actors.gateway.gateway import Gateway
from actors.gateway.http_context import HttpContext
from actors.gateway.model_resolver import ModelResolver
from actors.gateway.requests import (
    admit_chat,
    admit_completion,
    admit_embedding,
    parse_chat,
)
from actors.runtime.envelope import Envelope
from orchestration.errors import InvalidRequest

Admit = Callable[[bytes, str, ModelResolver], AdmittedRequest]


class GenerationRoutes:
    """The handlers. Each writes to its `HttpContext`, which is plain ASGI."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def chat(self, context: HttpContext) -> None:
        await self._answer(context, _admit_chat)

    async def completion(self, context: HttpContext) -> None:
        await self._answer(context, admit_completion)

    async def embedding(self, context: HttpContext) -> None:
        await self._answer(context, admit_embedding)

    async def _answer(self, context: HttpContext, admit: Admit) -> None:
        gateway, settings = self.gateway, self.gateway.settings
        work_id = gateway.streams.new_id()
        context.extra.append((b"x-orchestra-run", work_id.encode()))
        envelope = self._envelope(context)
        with gateway.active.request(work_id):
            raw = await context.body(settings.max_body_bytes, settings.body_timeout_s)
            request = context.request = admit(raw, work_id, gateway.resolver)
            request.outcome.started = context.started
            context.span.admitted(request, context.caller)
            await (self._stream if request.stream else self._full)(context, request, envelope)

    def _envelope(self, context: HttpContext) -> Envelope:
        """Raises `InvalidRequest` for an `X-Request-Timeout` that is not a number of seconds above 0."""
        seconds = self.gateway.settings.request_timeout_s
        header = context.header(b"x-request-timeout")
        if header:
            try:
                requested = float(header)
            except ValueError:
                requested = math.nan
            if not requested > 0:
                raise InvalidRequest(
                    f"X-Request-Timeout {header!r} is not a number of seconds above 0",
                    param="X-Request-Timeout",
                )
            seconds = min(seconds, requested)
        return Envelope.within(seconds, trace=context.span.traceparent, caller=context.caller)

    async def _full(self, context: HttpContext, request: AdmittedRequest, envelope: Envelope) -> None:
        origin, body = "", b""
        with DisconnectMonitor(context):
            origin, body = await self.gateway.full(request, envelope)
        _add_cache_header(context, origin)
        await context.answer(200, body)

    async def _stream(self, context: HttpContext, request: AdmittedRequest, envelope: Envelope) -> None:
        with StreamMonitor(context, self.gateway.settings, limit_s=envelope.remaining(0)):
            async with self.gateway.respond(request, envelope) as response:
                if not context.status:
                    _add_cache_header(context, response.origin)
                async for event in response:
                    for data in request.encoder.encode_event(event):
                        await context.event(data)
        await context.begin_stream()
        await context.end_stream(b"data: [DONE]\n\n")


def _admit_chat(raw: bytes, work_id: str, resolver: ModelResolver) -> AdmittedRequest:
    return admit_chat(parse_chat(raw, resolver), work_id, resolver)


def _add_cache_header(context: HttpContext, origin: str) -> None:
    context.span.answered_by(origin)
    if origin:
        context.extra.append((b"x-orchestra-cache", origin.encode()))
