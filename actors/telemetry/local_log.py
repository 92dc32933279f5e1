"""The log lines of a process: to stderr or a rotated file, as text or JSON; and those that become events."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from actors.telemetry.event_log import EventLog
from actors.telemetry.metrics import RECORDS_LEFT_OUT
from actors.telemetry.redaction import without_secrets
from actors.telemetry.settings import TelemetrySettings
from orchestration.errors import InvalidRequest
from orchestration.log_events import LogLevel

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MIB = 2**20
MINUTE_S = 60.0
MAX_LOGGERS = 1_000
"""Loggers of which records are counted in a minute; all further ones are counted together."""


class RecordLimit:
    """Allows so many records of a logger and level in each minute, and counts the others. Any thread may
    use it."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._counts: Counter[tuple[str, LogLevel]] = Counter()
        self._ends_at = 0.0
        self._lock = threading.Lock()

    def allows(self, logger: str, level: LogLevel) -> bool:
        """Whether one more record may pass now."""
        with self._lock:
            if not self._counts:
                self._ends_at = time.monotonic() + MINUTE_S
            key = logger, level
            if key not in self._counts and len(self._counts) >= MAX_LOGGERS:
                key = "other loggers", level
            self._counts[key] += 1
            return self._counts[key] <= self.per_minute

    def left_out(self, *, now: bool = False) -> dict[tuple[str, LogLevel], int]:
        """What was left out in a minute that is over, or with `now` in the one that is not; each once."""
        with self._lock:
            if not self._counts or (time.monotonic() < self._ends_at and not now):
                return {}
            counts, self._counts = self._counts, Counter()
        return {key: count - self.per_minute for key, count in counts.items() if count > self.per_minute}


class JsonFormatter(logging.Formatter):
    """One JSON object for each record."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def log_handler(settings: TelemetrySettings) -> logging.Handler:
    """The handler of log lines. Raises `InvalidRequest` for a file that cannot be written."""
    handler: logging.Handler
    if settings.log_file:
        path = Path(settings.log_file).expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handler = RotatingFileHandler(
                path,
                maxBytes=round(settings.log_file_mib * MIB),
                backupCount=settings.log_files,
                encoding="utf-8",
                errors="backslashreplace",
            )
        except OSError as error:
            raise InvalidRequest(
                f"telemetry.log_file {str(path)!r} cannot be written: {error.strerror or error}",
                param="telemetry.log_file",
            ) from error
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else logging.Formatter(TEXT_FORMAT))
    return handler


class RecordHandler(logging.Handler):
    """Makes events of log records: `record.warning` and `record.error`.

    Lines that tell an event already are left out, and so are those of the log's own parts: a problem of the
    log must not add to it. Of a logger that floods, `records_per_minute` become events, and `record.left_out`
    counts the others, so that the flood does not take the place of other events.
    """

    def __init__(
        self, log: EventLog, level: str, skipped: tuple[str, ...], records_per_minute: int = 100
    ) -> None:
        super().__init__(logging.ERROR if level == "OFF" else level)
        self.log = log
        self.limit = RecordLimit(records_per_minute)
        self.skipped = skipped
        self._inside = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "recorded", False) or record.name.startswith(self.skipped):
            return
        if getattr(self._inside, "busy", False):
            return
        self._inside.busy = True
        try:
            failed = record.levelno >= logging.ERROR
            self.tell_left_out()
            if not self.limit.allows(record.name, LogLevel.ERROR if failed else LogLevel.WARNING):
                RECORDS_LEFT_OUT.inc()
                return
            data: dict[str, Any] = {"logger": record.name}
            if record.exc_info and record.exc_info[0] is not None:
                data["exception"] = record.exc_info[0].__name__
            self.log.record(
                "record.error" if failed else "record.warning",
                level=LogLevel.ERROR if failed else LogLevel.WARNING,
                message=without_secrets(record.getMessage()),
                data=data,
            )
        except Exception:  # noqa: BLE001 - a record that cannot be formatted must not end its caller
            self.handleError(record)
        finally:
            self._inside.busy = False

    def tell_left_out(self, *, now: bool = False) -> None:
        """Record what was left out in the minute before, or with `now` until now."""
        for (logger, level), count in self.limit.left_out(now=now).items():
            self.log.record(
                "record.left_out",
                level=level,
                message=f"{count} further records of {logger} were left out: more than "
                f"{self.limit.per_minute} in a minute (logs.records_per_minute)",
                data={"logger": logger, "count": count},
            )
