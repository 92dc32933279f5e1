"""The span of a request at the gateway: the root of its trace, or a child of its client's span."""

from __future__ import annotations

import time

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from actors.gateway.admitted_request import AdmittedRequest
from actors.telemetry import conventions as names
from actors.telemetry.tracing import NO_SPAN, start_span, trace_id, tracing
from orchestration.errors import OrchestraError
from orchestration.messages import Run

WAITED_NS = 1_000_000
"""A wait for admission that is shorter is not worth a span of its own."""


class RequestSpan:
    """The span of one request, and the traceparent of its work."""

    __slots__ = ("_streamed", "span", "traceparent")

    def __init__(self, name: str, client: str, attributes: dict[str, AttributeValue]) -> None:
        """`client` is the client's traceparent, or ''. By `client_context` the request continues its trace,
        or links to it."""
        self._streamed: AdmittedRequest | None = None
        client = client if trace_id(client) else ""
        if tracing.tracer is None:
            self.span, self.traceparent = NO_SPAN, client
            return
        parent, links = ("", (client,)) if tracing.links_clients and client else (client, ())
        attributes[names.SPAN_KIND] = names.CHAIN
        self.span = start_span(name, parent, attributes, kind=SpanKind.SERVER, links=links)
        self.traceparent = self.span.traceparent

    def admitted(self, request: AdmittedRequest, caller: str) -> None:
        """Say what the request asks for, and who asks."""
        if not self.span.recording:
            return
        self._streamed = request if request.stream else None
        work = request.work
        found: dict[str, AttributeValue] = {names.RUN: work.id, names.STREAM: request.stream}
        if isinstance(work, Run):
            found[names.PATTERN] = work.pattern
        else:
            found[names.MODEL] = work.model
        if user := request.user or caller:
            found[names.USER_ID] = user
        if request.session:
            found[names.SESSION_ID] = found[names.CONVERSATION_ID] = request.session
        self.span.set(found)

    def answered_by(self, origin: str) -> None:
        """`origin` says whether a cache answered: see `Response`."""
        if origin:
            self.span.set({names.CACHE: origin})

    def end(self, status: int = 0, error: BaseException | None = None) -> None:
        """End the span. `status` is that of the response, 0 if none was sent. What the client did wrong,
        and that it left, is no error of this server."""
        if not self.span.recording:
            return
        if isinstance(error, OrchestraError):
            status = status or error.status
        if status:
            self.span.set({names.HTTP_RESPONSE_STATUS: status})
        if self._streamed is not None and (first_s := self._streamed.outcome.first_s):
            self.span.set({names.TIME_TO_FIRST_CHUNK: first_s})
        if error is not None:
            self.span.fail(error, server=True)
        self.span.end()


UNTRACED = RequestSpan("", "", {})
"""The span of a request that is not traced."""


def record_admission(trace: str, began_ns: int, error: OrchestraError | None = None) -> None:
    """Record that a request waited for its admission since `began_ns`, if it did."""
    if time.time_ns() - began_ns >= WAITED_NS:
        start_span("admission", trace, began_ns=began_ns).end(error)
