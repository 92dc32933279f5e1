"""The HTTP API: a Starlette router over tables of operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from opentelemetry.util.types import AttributeValue
from starlette.datastructures import QueryParams
from starlette.routing import Route, Router

from actors.gateway.admission_settings import ADMIN, INFERENCE
from actors.gateway.authentication import check_local
from actors.gateway.body_memory import BodyMemory
from actors.gateway.errors import ClientDisconnected, MethodNotAllowed, NotFound
from actors.gateway.gateway import Gateway
from actors.gateway.http_context import HttpContext, Receive, Scope, Send
from actors.gateway.metrics import count_request
from actors.gateway.operation import Access, CallContext, HttpHandler, Operation
from actors.gateway.request_log import RequestEnd
from actors.gateway.request_span import RequestSpan
from actors.runtime.failures import UNEXPECTED_ERRORS, internal_error
from actors.telemetry import conventions as names
from orchestration.errors import OrchestraError

S = TypeVar("S")

OTHER = "other"
"""The route of a path that does not exist, in metrics."""


class HttpApi:
    """The ASGI application. Each path of a table is an ASGI application of its own in the router, so what is
    mounted beside them may be any other."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.body_memory = BodyMemory(gateway.settings.max_bodies_bytes)
        self.exact: dict[str, PathApp] = {}
        """The paths without parameters, for which the router need not match patterns."""
        self.router = Router(redirect_slashes=False, default=PathApp(self, OTHER, {}))

    def serve(self, operations: Iterable[Operation[S]], services: S) -> None:
        """Serve the operations of a table, beside those that are served already."""
        by_path: dict[str, list[Operation[S]]] = {}
        for operation in operations:
            by_path.setdefault(operation.path, []).append(operation)
        for path, each in by_path.items():
            handlers = {
                method: (operation, _http_handler(operation, services, self.gateway))
                for operation in each
                for method in operation.methods
            }
            app = PathApp(self, each[0].route, handlers)
            if "{" in path:
                self.router.routes.append(Route(path, app))
            else:
                self.exact[path] = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.exact.get(scope["path"], self.router)(scope, receive, send)


class PathApp:
    """Serves the operations of one path, and answers its errors as OpenAI's API does."""

    def __init__(
        self, api: HttpApi, route: str, handlers: Mapping[str, tuple[Operation[Any], HttpHandler]]
    ) -> None:
        self.api = api
        self.gateway = api.gateway
        self.route = route
        self.handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = HttpContext(scope, receive, send, self.api.body_memory)
        operation: Operation[Any] | None = None
        try:
            operation, handler = self._handler(context)
            self._authorize(context, operation.access)
            if operation.access in (Access.KEY, Access.ADMIN):
                await self._traced(handler, context)
            else:
                await handler(context)
        except ClientDisconnected as error:
            context.status, context.error_sent = ClientDisconnected.status, error
        except OrchestraError as error:
            await self._fail(context, self.gateway.storage.explain_error(error))
        except UNEXPECTED_ERRORS as error:  # a defect becomes the 500 of this request
            what = f"request {_run_of(context) or context.request_id.decode()} to {self.route}"
            await self._fail(context, internal_error(what, error, "http"))
        finally:
            context.close()
            count_request("http", self.route, context.status or ClientDisconnected.status)
            if operation is not None and operation.access is Access.KEY:
                self._record(context)
            context.error_sent = None  # its traceback holds this context, and so the body

    def _record(self, context: HttpContext) -> None:
        """Record the end of the request in the log."""
        RequestEnd(
            protocol="http",
            route=f"{context.method} {self.route}",
            status=context.status or ClientDisconnected.status,
            started=context.started,
            caller=context.caller,
            trace=context.span.traceparent,
            run=_run_of(context),
            error=context.error_sent,
            request=context.request,
        ).record(self.gateway.settings.slow_request_s)

    def _authorize(self, context: HttpContext, access: Access) -> None:
        """Set the caller of the request. Raises `InvalidApiKey` and `Forbidden`."""
        authenticator, key = self.gateway.authenticator, context.header(b"authorization")
        if access is Access.KEY:
            context.caller = authenticator.of_http(key)
            authenticator.check_scope(context.caller, INFERENCE)
        elif access is Access.ADMIN:
            context.caller = authenticator.of_http(key)
            if authenticator.named:
                authenticator.check_scope(context.caller, ADMIN)
            else:
                check_local(self.gateway.settings.http, context.header(b"host"), context.header(b"origin"))
        elif key and access is Access.OPTIONAL_KEY:
            context.caller = authenticator.of_http(key)

    def _handler(self, context: HttpContext) -> tuple[Operation[Any], HttpHandler]:
        if not self.handlers:
            raise NotFound(f"no such path: {context.path}")
        found = self.handlers.get(context.method)
        if found is None:
            allowed = ", ".join(self.handlers)
            raise MethodNotAllowed(f"{context.path} takes {allowed}, not {context.method}", allowed=allowed)
        return found

    async def _traced(self, handler: HttpHandler, context: HttpContext) -> None:
        attributes: dict[str, AttributeValue] = {
            names.HTTP_REQUEST_METHOD: context.method,
            names.HTTP_ROUTE: self.route,
        }
        name = f"{context.method} {self.route}"
        span = context.span = RequestSpan(name, context.header(b"traceparent"), attributes)
        try:
            await handler(context)
        except BaseException as error:  # not kept in a variable: a cycle with this frame would hold the body
            span.end(context.status, error)
            raise
        span.end(context.status)

    async def _fail(self, context: HttpContext, error: OrchestraError) -> None:
        """Send the error; in a stream that has begun, as an event."""
        context.error_sent = error
        if context.streaming:
            await context.fail_stream(error)
        elif not context.status:
            await context.error(error)


def _http_handler(operation: Operation[S], services: S, gateway: Gateway) -> HttpHandler:
    if operation.http_handler is not None:
        return operation.http_handler(services)
    assert operation.handler is not None
    handler = operation.handler(services)
    limit = operation.max_bytes or gateway.settings.max_body_bytes

    async def handle(context: HttpContext) -> None:
        body, others = b"{}", dict(context.path_params)
        if operation.has_body:
            body = await context.body(limit, gateway.settings.body_timeout_s, operation.limit_name)
        else:
            query = QueryParams(context.scope.get("query_string", b""))
            known = operation.request.model_fields
            strict = operation.access is Access.ADMIN  # `decode` refuses unknown ones
            others |= {name: value for name, value in query.items() if value and (strict or name in known)}
        call = CallContext(
            caller=context.caller,
            header=lambda name: context.header(name.lower().encode()),
            trace=context.span.traceparent,
        )
        reply = await handler(operation.decode(body, others), call)
        await context.answer(reply.status, reply.body, *reply.headers, kind=reply.content_type)

    return handle


def _run_of(context: HttpContext) -> str:
    """The id of the run in the headers of the response, or ''."""
    return next((value.decode() for name, value in context.extra if name == b"x-orchestra-run"), "")
