"""Exports batches in the SDK's threads, and counts what became of each item."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from actors.telemetry.metrics import DROPPED, EXPORTED
from actors.telemetry.span_encoding import SpanBatch, SpanEncoder

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord

log = logging.getLogger(__name__)


class Rejections:
    """How many items a collector rejected although it answered 200 (`partial_success` of OTLP), which the SDK
    counts as exported. `on_response` is a hook of a `requests` session, called in the exporting thread."""

    def __init__(self, signal: str) -> None:
        self._answer = ExportTraceServiceResponse if signal == "traces" else ExportLogsServiceResponse
        self._field = "rejected_spans" if signal == "traces" else "rejected_log_records"
        self._count = 0

    def on_response(self, response: Any, **_: Any) -> None:
        if not response.ok or not response.content:
            return
        try:
            answer = self._answer.FromString(response.content)
        except DecodeError:  # no collector's answer, though it says 200
            return
        self._count = max(0, getattr(answer.partial_success, self._field))
        if self._count:
            log.debug("the collector rejected some: %s", answer.partial_success.error_message)

    def taken(self) -> int:
        """The number since the last call."""
        count, self._count = self._count, 0
        return count


class Outbox:
    """Counts what waits for one exporter, so that what does not fit is counted and not silently lost."""

    def __init__(self, signal: str, limit: int) -> None:
        self.limit = limit
        self._signal = signal
        self._added = 0
        """Written by the event loop only."""
        self._taken = 0
        """Written by the exporting thread only."""
        self._full = DROPPED.labels(signal, "queue_full")
        self._refused = DROPPED.labels(signal, "export_failed")
        self._rejected = DROPPED.labels(signal, "rejected")
        self._exported = EXPORTED.labels(signal)
        self._failing = False
        self.rejections = Rejections(signal)

    def admit(self) -> bool:
        """Whether there is room for one more, which the caller then adds."""
        if self._added - self._taken >= self.limit:
            self._full.inc()
            return False
        self._added += 1
        return True

    def sent(self, count: int, succeeded: bool) -> None:
        """`count` items have left the queue. The first failure after a success is logged, and the first
        success after a failure."""
        self._taken += count
        rejected = min(self.rejections.taken(), count) if succeeded else 0
        (self._exported if succeeded else self._refused).inc(count - rejected)
        self._rejected.inc(rejected)
        if succeeded == self._failing:
            self._failing = not succeeded
            if succeeded:
                log.warning("the collector accepts %s again", self._signal)
            else:
                log.warning(
                    "the collector does not accept %s: they are dropped and counted in "
                    "orchestra_telemetry_dropped_total; check telemetry.otlp_endpoint",
                    self._signal,
                )


class RecordExporter(SpanExporter):
    """Exports span records, in the SDK's thread, and tells `outbox` what became of each batch."""

    def __init__(self, exporter: SpanExporter, encoder: SpanEncoder, outbox: Outbox) -> None:
        self.exporter = exporter
        self.encoder = encoder
        self.outbox = outbox

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """`spans` are `SpanRecord`s."""
        succeeded = False
        try:
            result = self.exporter.export(SpanBatch(spans, self.encoder))
            succeeded = result is SpanExportResult.SUCCESS
            return result
        except Exception as error:  # noqa: BLE001 - whatever a collector answers
            log.debug("spans could not be exported: %r", error)
            return SpanExportResult.FAILURE
        finally:
            self.outbox.sent(len(spans), succeeded)

    def shutdown(self) -> None:
        self.exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class CountedLogExporter(LogRecordExporter):
    """Tells `outbox` what became of each batch."""

    def __init__(self, exporter: LogRecordExporter, outbox: Outbox) -> None:
        self.exporter = exporter
        self.outbox = outbox

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        succeeded = False
        try:
            result = self.exporter.export(batch)
            succeeded = result is LogRecordExportResult.SUCCESS
            return result
        except Exception as error:  # noqa: BLE001 - whatever a collector answers
            log.debug("log records could not be exported: %r", error)
            return LogRecordExportResult.FAILURE
        finally:
            self.outbox.sent(len(batch), succeeded)

    def shutdown(self) -> None:
        self.exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True
