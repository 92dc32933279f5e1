"""Sends spans and log records to an OTLP collector, in threads of the OpenTelemetry SDK.

A collector that is dead, slow, or refuses what it gets costs counters and one log line, never a request.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, cast

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from actors.telemetry import conventions as names
from actors.telemetry.content import Redactor
from actors.telemetry.counted_export import CountedLogExporter, Outbox, RecordExporter
from actors.telemetry.identity import ProcessIdentity
from actors.telemetry.settings import TelemetrySettings
from actors.telemetry.span_encoding import SpanEncoder, use_encoded
from actors.telemetry.span_record import SpanRecord
from actors.telemetry.tail_sampler import TailSampler
from actors.telemetry.tracing import Attributes, Tracer, tracing
from orchestration.log_events import LogEvent, LogLevel

if TYPE_CHECKING:
    import requests

_SDK_LOGGERS = (
    "opentelemetry.exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace.export",
)
SHOWN_BY_SPANS = frozenset(
    ("request.ended", "run.started", "run.ended", "step.ended", "generation.ended", "generation.started")
)
"""Events whose span says the same, unless they tell of a problem. Each log record costs 60 µs."""
_SEVERITIES = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
}


class SpanOutbox:
    """Queues ended spans for their export, while there is room."""

    def __init__(self, batches: BatchSpanProcessor, outbox: Outbox) -> None:
        self.batches = batches
        self.outbox = outbox

    def send(self, span: SpanRecord) -> None:
        if self.outbox.admit():
            self.batches.on_end(cast(Any, span))


class LogOutbox:
    """Queues log records for their export, while there is room: a `LogSink`."""

    def __init__(self, provider: LoggerProvider, outbox: Outbox, tail: TailSampler) -> None:
        self.provider = provider
        self.outbox = outbox
        self.tail = tail
        self._logger = provider.get_logger(names.SCOPE, schema_url=names.SCHEMA_URL)

    def emit(
        self, name: str, attributes: Attributes, context: SpanContext, at_ns: int, level: str, body: str
    ) -> None:
        """Export the record, or keep it while its trace is one of those that may still be left out."""
        record = LogRecord(
            timestamp=at_ns,
            observed_timestamp=at_ns,
            context=set_span_in_context(NonRecordingSpan(context), Context()),
            severity_number=_SEVERITIES.get(level, SeverityNumber.INFO),
            severity_text=level.upper(),
            body=body or None,
            attributes=dict(attributes),
            event_name=name,
        )
        if not (tracing.keeps_unsampled and self.tail.hold_log(context, record)):
            self.send(record)

    def record(self, event: LogEvent) -> None:
        """Export an event of the central log whose trace is recorded, or may be: a sink of `event_log`."""
        if event.level is LogLevel.INFO and event.name in SHOWN_BY_SPANS:
            return
        if not event.trace or not (event.span or self.tail.knows(event.trace)):
            return
        try:
            context = SpanContext(
                int(event.trace, 16),
                int(event.span or "0", 16),
                is_remote=False,
                trace_flags=TraceFlags(bool(event.span)),
            )
        except ValueError:
            return
        attributes: dict[str, AttributeValue] = {
            key: value
            for key, value in (
                (names.RUN, event.run),
                (names.STEP, event.step),
                (names.USER_ID, event.caller),
                (names.MODEL, event.model),
                (names.NODE, event.node),
                (names.PATTERN, event.pattern),
            )
            if value
        }
        if event.data:
            attributes[names.LOG_DATA] = json.dumps(event.data, ensure_ascii=False, default=str)
        self.emit(event.name, attributes, context, int(event.at * 1e9), event.level.value, event.message)

    def send(self, record: LogRecord) -> None:
        if self.outbox.admit():
            self._logger.emit(record)


class Telemetry:
    """The exports of this process. Made by `start_telemetry`; end it with `stop`."""

    def __init__(self, settings: TelemetrySettings, identity: ProcessIdentity, node: str = "") -> None:
        self.settings = settings
        resource = Resource.create(_resource(settings, identity, node))
        outbox = Outbox("traces", settings.export_queue)
        log_outbox = Outbox("logs", settings.export_queue)
        spans, records = _exporters(settings, outbox, log_outbox)
        encoder = SpanEncoder(resource, InstrumentationScope(names.SCOPE, schema_url=names.SCHEMA_URL))
        self._batches = BatchSpanProcessor(RecordExporter(spans, encoder, outbox), **_batching(settings))
        self._spans = SpanOutbox(self._batches, outbox)
        self.tail = TailSampler(settings, self._spans.send)
        self.tracer = Tracer(self._end)
        self.logger_provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(
            BatchLogRecordProcessor(CountedLogExporter(records, log_outbox), **_batching(settings))
        )
        self.logs = LogOutbox(self.logger_provider, log_outbox, self.tail)
        self.tail.send_log = self.logs.send
        tracing.tracer, tracing.logs = self.tracer, self.logs
        self.update_settings(settings)

    def update_settings(self, settings: TelemetrySettings) -> None:
        """Use the sampling and the content of `settings` for what begins from now on."""
        self.settings = self.tail.settings = settings
        self.tracer.sample_ratio = settings.sample_ratio
        tracing.keeps_unsampled = bool(settings.slow_s)
        tracing.links_clients = settings.client_context == "link"
        tracing.content = Redactor(settings.redact, settings.content_characters) if settings.content else None

    def _end(self, span: SpanRecord) -> None:
        if span.sampled:
            self._spans.send(span)
        else:
            self.tail.on_end(span)

    def flush(self) -> None:
        """Export what waits. It blocks: for tests and threads."""
        self._batches.force_flush()
        self.logger_provider.force_flush()

    def stop(self) -> None:
        """End tracing here; what waits is exported within `export_timeout_s`, or dropped. It blocks until
        then."""
        if tracing.logs is self.logs:
            tracing.tracer, tracing.logs, tracing.content = None, None, None
            tracing.keeps_unsampled = tracing.links_clients = False
        threads = [
            threading.Thread(target=shutdown, daemon=True)
            for shutdown in (self._batches.shutdown, self.logger_provider.shutdown)
        ]
        until = time.monotonic() + self.settings.export_timeout_s
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


def start_telemetry(
    settings: TelemetrySettings, identity: ProcessIdentity | None = None, node: str = ""
) -> Telemetry | None:
    """Switch tracing on for this process if an endpoint is set; call `stop` on the result. Raises
    `ModuleNotFoundError` for gRPC without its package."""
    if not settings.otlp_endpoint:
        return None
    for name in _SDK_LOGGERS:  # they log a stack trace for each batch; `Outbox` logs and counts instead
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return Telemetry(settings, identity or ProcessIdentity.of_this_process("up"), node)


def _resource(settings: TelemetrySettings, identity: ProcessIdentity, node: str) -> dict[str, str]:
    found = {
        names.SERVICE_NAME: settings.service_name,
        names.SERVICE_VERSION: identity.version,
        names.SERVICE_INSTANCE_ID: identity.id,
        names.HOST_NAME: identity.host,
        names.ROLE: identity.role,
    }
    return found | {names.NODE: node} if node else found


def _batching(settings: TelemetrySettings) -> dict[str, Any]:
    return {
        "max_queue_size": settings.export_queue + 1,  # `Outbox` holds the limit
        "max_export_batch_size": min(512, settings.export_queue),
        "schedule_delay_millis": settings.export_interval_s * 1000,
    }


def _exporters(
    settings: TelemetrySettings, spans: Outbox, records: Outbox
) -> tuple[SpanExporter, LogRecordExporter]:
    """The exporters of the protocol. Imported here: they take 50 ms, which other commands need not spend."""
    base, timeout_s = settings.otlp_endpoint.rstrip("/"), settings.export_timeout_s
    if settings.otlp_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import _log_exporter
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc

        use_encoded(over_grpc)
        insecure = not base.startswith("https://")
        return (
            over_grpc.OTLPSpanExporter(endpoint=base, insecure=insecure, timeout=timeout_s),
            _log_exporter.OTLPLogExporter(endpoint=base, insecure=insecure, timeout=timeout_s),
        )
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

    use_encoded(over_http)
    return (
        over_http.OTLPSpanExporter(endpoint=f"{base}/v1/traces", timeout=timeout_s, session=_session(spans)),
        OTLPLogExporter(endpoint=f"{base}/v1/logs", timeout=timeout_s, session=_session(records)),
    )


def _session(outbox: Outbox) -> requests.Session:
    """A session that tells `outbox` what a collector rejects."""
    import requests

    session = requests.Session()
    session.hooks["response"].append(outbox.rejections.on_response)
    return session
