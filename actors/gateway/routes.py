"""The HTTP face: which path does what."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from opentelemetry.trace import SpanKind

from actors.gateway.body_room import BodyRoom
from actors.gateway.disconnect_monitor import Watch
from actors.gateway.errors import ClientLeft, NoSuchPath, WrongMethod
from actors.gateway.feedback import PATH as FEEDBACK
from actors.gateway.feedback import FeedbackFront
from actors.gateway.gateway import Gateway
from actors.gateway.http_context import Exchange, Receive, Scope, Send
from actors.gateway.jobs_routes import JobsRoutes
from actors.gateway.metrics import count_request
from actors.gateway.model_resolver import Admission
from actors.gateway.requests import Asked, asked_chat, asked_completion, asked_embedding, parse_chat
from actors.gateway.run_events import RunEvents
from actors.gateway.status_routes import Pages
from actors.runtime.envelope import Envelope
from actors.runtime.failures import UNEXPECTED_ERRORS, internal_error
from actors.telemetry.telemetry import span, trace_id, traceparent
from orchestration.errors import InvalidRequest, OrchestraError

log = logging.getLogger(__name__)

Handler = Callable[[Exchange], Awaitable[None]]
Parse = Callable[[bytes, str, Admission], Asked]
MODELS = "/v1/models/"
LISTS = frozenset({"/v1/models", MODELS + "{model}"})
"""Open routes where a key, if one is shown, must be right: clients list the models to check it."""
OPEN = LISTS | {"/", "/healthz", "/readyz", "/metrics"}
"""Routes that need no key where callers are named. Whatever is not here needs one."""


class Routes:
    """The ASGI application."""

    def __init__(self, gateway: Gateway, jobs: JobsRoutes, feedback: FeedbackFront, runs: RunEvents) -> None:
        self.gateway = gateway
        self.jobs = jobs
        self.runs = runs
        self.room = BodyRoom(gateway.settings.max_bodies_bytes)
        pages = Pages(gateway)
        self.table: dict[str, dict[str, Handler]] = {
            "/v1/chat/completions": {
                "POST": self._ask(
                    lambda raw, work_id, known: asked_chat(parse_chat(raw, known), work_id, known)
                )
            },
            "/v1/completions": {"POST": self._ask(asked_completion)},
            "/v1/embeddings": {"POST": self._ask(asked_embedding)},
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
        exchange = Exchange(scope, receive, send, self.room)
        route = "other"
        try:
            route, methods = self._found(exchange.path)
            handler = methods.get(exchange.method)
            if handler is None:
                allowed = ", ".join(methods)
                raise WrongMethod(f"{exchange.path} takes {allowed}, not {exchange.method}", allowed=allowed)
            key = exchange.header(b"authorization")
            if route not in OPEN or (key and route in LISTS):
                exchange.caller = self.gateway.callers.of_http(key)
            if route in OPEN:
                await handler(exchange)
            else:
                await self._traced(route, handler, exchange)
        except ClientLeft:
            exchange.status = ClientLeft.status
        except OrchestraError as error:
            await self._failed(exchange, self.gateway.storage.explain_error(error))
        except UNEXPECTED_ERRORS as error:  # the worker loop of HTTP: a crash becomes a 500
            run = next((value.decode() for name, value in exchange.extra if name == b"x-orchestra-run"), "")
            what = f"request {run or exchange.request_id.decode()} to {route}"
            await self._failed(exchange, internal_error(what, error, "http"))
        finally:
            exchange.close()
            count_request("http", route, exchange.status or ClientLeft.status)

    async def _traced(self, route: str, handler: Handler, exchange: Exchange) -> None:
        said = exchange.header(b"traceparent")
        with span(f"{exchange.method} {route}", parent=said, kind=SpanKind.SERVER) as running:
            exchange.trace = traceparent(said if trace_id(said) else "")
            await handler(exchange)
            running.set_attribute("http.response.status_code", exchange.status)

    def _found(self, path: str) -> tuple[str, dict[str, Handler]]:
        methods = self.table.get(path)
        if methods is not None:
            return path, methods
        if path.startswith(MODELS) and len(path) > len(MODELS):
            return MODELS + "{model}", self.model_page
        found = self.jobs.found(path) or self.runs.found(path)
        if found is not None:
            return found
        raise NoSuchPath(f"no such path: {path}")

    async def _failed(self, exchange: Exchange, error: OrchestraError) -> None:
        """Tell the client; in a stream that has begun, as an event."""
        if exchange.streaming:
            await exchange.fail_stream(error)
        elif not exchange.status:
            await exchange.error(error)

    def _ask(self, parse: Parse) -> Handler:
        """A route that puts work on a queue and answers with what comes of it."""

        async def handle(exchange: Exchange) -> None:
            gateway, settings = self.gateway, self.gateway.settings
            work_id = gateway.asker.new_id()
            exchange.extra.append((b"x-orchestra-run", work_id.encode()))
            envelope = self._envelope(exchange)
            raw = await exchange.body(settings.max_body_bytes, settings.body_timeout_s)
            asked = parse(raw, work_id, gateway.admission)
            await (self._stream if asked.stream else self._whole)(exchange, asked, envelope)

        return handle

    def _envelope(self, exchange: Exchange) -> Envelope:
        """Raises `InvalidRequest` for an `X-Request-Timeout` that is no time."""
        seconds = self.gateway.settings.request_timeout_s
        said = exchange.header(b"x-request-timeout")
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
        return Envelope.within(seconds, trace=exchange.trace, caller=exchange.caller)

    def _watch(self, exchange: Exchange, envelope: Envelope, *, stream: bool) -> Watch:
        return Watch(exchange, self.gateway.settings, stream=stream, limit_s=envelope.remaining(0))

    async def _whole(self, exchange: Exchange, asked: Asked, envelope: Envelope) -> None:
        body = b""
        async with self._watch(exchange, envelope, stream=False):
            body = await self.gateway.whole(asked, envelope)
        _tell_cache(exchange, asked)
        await exchange.answer(200, body)

    async def _stream(self, exchange: Exchange, asked: Asked, envelope: Envelope) -> None:
        async with self._watch(exchange, envelope, stream=True):
            async with aclosing(self.gateway.pieces(asked, envelope)) as pieces:
                async for piece in pieces:
                    if not exchange.status:
                        _tell_cache(exchange, asked)
                    await exchange.event(piece)
        await exchange.begin_stream()
        await exchange.end_stream(b"data: [DONE]\n\n")


def _tell_cache(exchange: Exchange, asked: Asked) -> None:
    if asked.shape.cache:
        exchange.extra.append((b"x-orchestra-cache", asked.shape.cache.encode()))


def _posting(handler: Handler) -> dict[str, Handler]:
    return {"POST": handler}


def _reading(handler: Handler) -> dict[str, Handler]:
    """The methods of a page that only reads."""
    return {"GET": handler, "HEAD": handler}
