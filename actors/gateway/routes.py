"""The HTTP face: which path does what."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from opentelemetry.trace import SpanKind

from actors.gateway.body_memory import BodyMemory
from actors.gateway.disconnect_monitor import DisconnectMonitor
from actors.gateway.errors import ClientDisconnected, MethodNotAllowed, NotFound
from actors.gateway.feedback import PATH as FEEDBACK
from actors.gateway.feedback import FeedbackApi
from actors.gateway.gateway import Gateway
from actors.gateway.http_context import HttpContext, Receive, Scope, Send
from actors.gateway.jobs_routes import JobsRoutes
from actors.gateway.metrics import count_request
from actors.gateway.model_resolver import ModelResolver
from actors.gateway.requests import AdmittedRequest, admit_chat, admit_completion, admit_embedding, parse_chat
from actors.gateway.run_events import RunEvents
from actors.gateway.status_routes import StatusRoutes
from actors.runtime.envelope import Envelope
from actors.runtime.failures import UNEXPECTED_ERRORS, internal_error
from actors.telemetry.telemetry import span, trace_id, traceparent
from orchestration.errors import InvalidRequest, OrchestraError

log = logging.getLogger(__name__)

Handler = Callable[[HttpContext], Awaitable[None]]
Parse = Callable[[bytes, str, ModelResolver], AdmittedRequest]
MODELS = "/v1/models/"
LISTS = frozenset({"/v1/models", MODELS + "{model}"})
"""Open routes where a key, if one is shown, must be right: clients list the models to check it."""
OPEN = LISTS | {"/", "/healthz", "/readyz", "/metrics"}
"""Routes that need no key where callers are named. Whatever is not here needs one."""


class Routes:
    """The ASGI application."""

    def __init__(self, gateway: Gateway, jobs: JobsRoutes, feedback: FeedbackApi, runs: RunEvents) -> None:
        self.gateway = gateway
        self.jobs = jobs
        self.runs = runs
        self.body_memory = BodyMemory(gateway.settings.max_bodies_bytes)
        pages = StatusRoutes(gateway)
        self.table: dict[str, dict[str, Handler]] = {
            "/v1/chat/completions": {
                "POST": self._ask(
                    lambda raw, work_id, known: admit_chat(parse_chat(raw, known), work_id, known)
                )
            },
            "/v1/completions": {"POST": self._ask(admit_completion)},
            "/v1/embeddings": {"POST": self._ask(admit_embedding)},
            FEEDBACK: _posting(feedback.post),
            "/v1/models": _reading(pages.models),
            "/v1/patterns": _reading(pages.patterns),
            "/healthz": _reading(pages.healthz),
            "/readyz": _reading(pages.readyz),
            "/metrics": _reading(pages.metrics),
            "/": _reading(pages.index),
        } | jobs.table
        self.model_page = _reading(pages.model)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        context = HttpContext(scope, receive, send, self.body_memory)
        route = "other"
        try:
            route, methods = self._found(context.path)
            handler = methods.get(context.method)
            if handler is None:
                allowed = ", ".join(methods)
                raise MethodNotAllowed(
                    f"{context.path} takes {allowed}, not {context.method}", allowed=allowed
                )
            key = context.header(b"authorization")
            if route not in OPEN or (key and route in LISTS):
                context.caller = self.gateway.authenticator.of_http(key)
            if route in OPEN:
                await handler(context)
            else:
                await self._traced(route, handler, context)
        except ClientDisconnected:
            context.status = ClientDisconnected.status
        except OrchestraError as error:
            await self._failed(context, self.gateway.storage.explain_error(error))
        except UNEXPECTED_ERRORS as error:  # the worker loop of HTTP: a crash becomes a 500
            run = next((value.decode() for name, value in context.extra if name == b"x-orchestra-run"), "")
            what = f"request {run or context.request_id.decode()} to {route}"
            await self._failed(context, internal_error(what, error, "http"))
        finally:
            context.close()
            count_request("http", route, context.status or ClientDisconnected.status)

    async def _traced(self, route: str, handler: Handler, context: HttpContext) -> None:
        said = context.header(b"traceparent")
        with span(f"{context.method} {route}", parent=said, kind=SpanKind.SERVER) as running:
            context.trace = traceparent(said if trace_id(said) else "")
            await handler(context)
            running.set_attribute("http.response.status_code", context.status)

    def _found(self, path: str) -> tuple[str, dict[str, Handler]]:
        methods = self.table.get(path)
        if methods is not None:
            return path, methods
        if path.startswith(MODELS) and len(path) > len(MODELS):
            return MODELS + "{model}", self.model_page
        found = self.jobs.found(path) or self.runs.found(path)
        if found is not None:
            return found
        raise NotFound(f"no such path: {path}")

    async def _failed(self, context: HttpContext, error: OrchestraError) -> None:
        """Tell the client; in a stream that has begun, as an event."""
        if context.streaming:
            await context.fail_stream(error)
        elif not context.status:
            await context.error(error)

    def _ask(self, parse: Parse) -> Handler:
        """A route that puts work on a queue and answers with what comes of it."""

        async def handle(context: HttpContext) -> None:
            gateway, settings = self.gateway, self.gateway.settings
            work_id = gateway.asker.new_id()
            context.extra.append((b"x-orchestra-run", work_id.encode()))
            envelope = self._envelope(context)
            raw = await context.body(settings.max_body_bytes, settings.body_timeout_s)
            request = parse(raw, work_id, gateway.resolver)
            await (self._stream if request.stream else self._whole)(context, request, envelope)

        return handle

    def _envelope(self, context: HttpContext) -> Envelope:
        """Raises `InvalidRequest` for an `X-Request-Timeout` that is no time."""
        seconds = self.gateway.settings.request_timeout_s
        said = context.header(b"x-request-timeout")
        if said:
            try:
                wanted = float(said)
            except ValueError:
                wanted = math.nan
            if not wanted > 0:
                raise InvalidRequest(
                    f"X-Request-Timeout {said!r} is not a number of seconds above 0",
                    param="X-Request-Timeout",
                )
            seconds = min(seconds, wanted)
        return Envelope.within(seconds, trace=context.trace, caller=context.caller)

    def _watch(self, context: HttpContext, envelope: Envelope, *, stream: bool) -> DisconnectMonitor:
        return DisconnectMonitor(context, self.gateway.settings, stream=stream, limit_s=envelope.remaining(0))

    async def _whole(self, context: HttpContext, request: AdmittedRequest, envelope: Envelope) -> None:
        body = b""
        async with self._watch(context, envelope, stream=False):
            body = await self.gateway.whole(request, envelope)
        _tell_cache(context, request)
        await context.answer(200, body)

    async def _stream(self, context: HttpContext, request: AdmittedRequest, envelope: Envelope) -> None:
        async with self._watch(context, envelope, stream=True):
            async with aclosing(self.gateway.pieces(request, envelope)) as pieces:
                async for encode_event in pieces:
                    if not context.status:
                        _tell_cache(context, request)
                    await context.event(encode_event)
        await context.begin_stream()
        await context.end_stream(b"data: [DONE]\n\n")


def _tell_cache(context: HttpContext, request: AdmittedRequest) -> None:
    if request.encoder.cache:
        context.extra.append((b"x-orchestra-cache", request.encoder.cache.encode()))


def _posting(handler: Handler) -> dict[str, Handler]:
    return {"POST": handler}


def _reading(handler: Handler) -> dict[str, Handler]:
    """The methods of a page that only reads."""
    return {"GET": handler, "HEAD": handler}
