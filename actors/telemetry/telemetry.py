"""Metrics and traces of the runtime. Names follow Prometheus and OpenTelemetry conventions.

Tracing costs nothing until it is switched on: without an exporter the tracer of the OpenTelemetry API
is a no-op, and `traceparent` headers are still passed on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel, ConfigDict, Field, field_validator

from orchestration.hot import Hot
from orchestration.validation import split_address

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger(__name__)

BUS_RECONNECTS = Counter("orchestra_bus_reconnects", "Reconnects to NATS")
BUS_DENIED = Counter("orchestra_bus_denied_publishes", "Publishes and subscriptions that NATS denied")
BUS_SLOW_CONSUMER = Counter("orchestra_bus_slow_consumer", "Messages dropped because a handler was too slow")
ACTOR_MESSAGES = Counter(
    "orchestra_actor_messages", "Messages handled by actors", ["actor", "message", "outcome"]
)
ACTOR_SECONDS = Histogram(
    "orchestra_actor_message_seconds",
    "Time in seconds that a handler took for a message",
    ["actor", "message"],
)
INTERNAL_ERRORS = Counter(
    "orchestra_internal_errors", "Unexpected exceptions, by the place in the code", ["where"]
)
ACTOR_RESTARTS = Counter("orchestra_actor_restarts", "Restarts by the supervisor", ["actor"])
ACTORS_FAILED = Gauge(
    "orchestra_actors_failed", "Actors that crashed too often and were not restarted again", ["actor"]
)
MAILBOX_REFUSED = Counter("orchestra_mailbox_refused", "Messages refused by a full mailbox", ["actor"])

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACEPARENT = re.compile("[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_tracer = trace.get_tracer("orchestra")
_tracing = False


class TelemetrySettings(BaseModel):
    """Traces and logs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    otlp_endpoint: str = ""
    """Base URL of an OTLP/HTTP collector, for example http://127.0.0.1:4318. Empty: no traces."""
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of requests without a `traceparent` that are traced. A request with one is traced when its
    sampled flag is set."""
    service_name: str = "orchestra"
    """Value of `service.name` in traces."""
    log_level: Hot[str] = Field(default="WARNING", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """Minimum level of log lines."""
    metrics: str = "127.0.0.1:0"
    """The address at which a process without a gateway serves `/metrics`, `/healthz` and `/readyz`:
    `host:port` or `[v6]:port`; port 0 takes a free port, which the ready line names. Empty: none. A
    gateway serves them at `gateway.http`, and there the metrics of all other processes as well."""

    @field_validator("metrics")
    @classmethod
    def _has_host_and_port(cls, value: str) -> str:
        if value:
            split_address(value)
        return value


def start_tracing(settings: TelemetrySettings) -> TracerProvider | None:
    """Switch tracing on for this process if an endpoint is set; call `shutdown` on the result."""
    global _tracer, _tracing
    if not settings.otlp_endpoint:
        return None
    # Imported here: they take 50 ms, which commands without tracing need not spend.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    provider = TracerProvider(
        resource=Resource.create({"service.name": settings.service_name}),
        sampler=ParentBasedTraceIdRatio(settings.sample_ratio),
    )
    endpoint = settings.otlp_endpoint.rstrip("/") + "/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    _tracer = provider.get_tracer("orchestra")
    _tracing = True
    return provider


_NO_SPAN = nullcontext(trace.INVALID_SPAN)


def span(
    name: str, *, parent: str | None = None, kind: SpanKind = SpanKind.INTERNAL, **attributes: AttributeValue
) -> AbstractContextManager[Span]:
    """A span below the W3C traceparent `parent`, or below the current span when that is None. It is the root
    of a trace when `parent` is '' or invalid."""
    if not _tracing:
        return _NO_SPAN
    return _started(name, parent, kind, attributes)


@contextmanager
def _started(
    name: str, parent: str | None, kind: SpanKind, attributes: dict[str, AttributeValue]
) -> Iterator[Span]:
    context = None if parent is None else _PROPAGATOR.extract({"traceparent": parent}, Context())
    with _tracer.start_as_current_span(
        name, context=context, kind=kind, attributes={k.replace("__", "."): v for k, v in attributes.items()}
    ) as started:
        yield started


def traceparent(fallback: str = "") -> str:
    """The W3C header of the current span; `fallback`, the incoming header, when tracing is off."""
    if not _tracing:
        return fallback
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", fallback)


def trace_id(parent: str) -> str:
    """The 32 hexadecimal digits of the trace of a `traceparent`; '' for an invalid one."""
    return parent[3:35] if _TRACEPARENT.fullmatch(parent) else ""


def recorded_trace_id(parent: str) -> str:
    """`trace_id` for display; '' for a trace that is not recorded."""
    return trace_id(parent) if parent.endswith(("1", "3", "5", "7", "9", "b", "d", "f")) else ""
