"""Log lines as text and JSON, in a bounded file, and as events."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.launch.process import configure_logging
from actors.runtime.failures import internal_error
from actors.telemetry.event_log import RECORDED, event_log
from actors.telemetry.local_log import JsonFormatter, RecordHandler, RecordLimit
from actors.telemetry.settings import TelemetrySettings
from orchestration.errors import InvalidRequest
from orchestration.log_events import LogEvent, LogLevel
from tests.fixtures.log_events import recorded_events

CANARY = "canary-55aa"


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, restored after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    with recorded_events() as found:
        yield found


@pytest.fixture
def logger(events: list[LogEvent]) -> Iterator[logging.Logger]:
    """A logger whose records become events."""
    handler = RecordHandler(event_log, "WARNING", ("actors.logs",))
    logger = logging.getLogger("tests.local_log")
    own = logging.getLogger("actors.logs.test")
    for each in (logger, own):
        each.addHandler(handler)
    yield logger
    for each in (logger, own):
        each.removeHandler(handler)


def test_json_lines_are_one_object_each_also_with_line_breaks_and_exceptions(
    root_logger: logging.Logger, tmp_path: Path
) -> None:
    file = tmp_path / "logs" / "orchestra.log"
    configure_logging(TelemetrySettings(log_format="json", log_file=str(file)))
    try:
        raise ValueError("boom")
    except ValueError:
        root_logger.warning("first\nsecond %s", "ä", exc_info=True)
    (line,) = file.read_text().splitlines()
    fields = json.loads(line)
    assert (fields["level"], fields["message"]) == ("warning", "first\nsecond ä")
    assert "ValueError: boom" in fields["exception"]


def test_a_log_file_is_rotated_and_bounded(root_logger: logging.Logger, tmp_path: Path) -> None:
    file = tmp_path / "orchestra.log"
    settings = TelemetrySettings(log_file=str(file), log_file_mib=0.01, log_files=2)
    configure_logging(settings)
    for number in range(2_000):
        root_logger.warning("line %d %s", number, "x" * 50)
    files = sorted(each.name for each in tmp_path.iterdir())
    assert files == ["orchestra.log", "orchestra.log.1", "orchestra.log.2"]
    assert all(each.stat().st_size <= 0.01 * 2**20 for each in tmp_path.iterdir())


def test_a_log_file_that_cannot_be_written_is_refused(root_logger: logging.Logger, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    settings = TelemetrySettings(log_file=str(tmp_path / "taken" / "orchestra.log"))
    with pytest.raises(InvalidRequest, match=r"telemetry\.log_file"):
        configure_logging(settings)


def test_a_warning_becomes_an_event_without_secrets(logger: logging.Logger, events: list[LogEvent]) -> None:
    logger.warning("cannot reach %s", "nats://user:hunter22@host:4222")
    logger.info("not recorded")
    (event,) = events
    assert (event.name, event.level) == ("record.warning", LogLevel.WARNING)
    assert "hunter22" not in event.message
    assert event.data["logger"] == "tests.local_log"


def test_lines_that_tell_an_event_and_those_of_the_log_itself_become_none(
    logger: logging.Logger, events: list[LogEvent]
) -> None:
    logger.warning("told already", extra=RECORDED)
    logging.getLogger("actors.logs.test").error("the log has a problem")
    assert events == []


def test_a_sink_that_logs_does_not_feed_back(logger: logging.Logger, events: list[LogEvent]) -> None:
    def sink(event: LogEvent) -> None:
        logger.warning("the sink has a problem with %s", event.name)

    event_log.add_sink(sink)
    try:
        logger.error("once")
    finally:
        event_log.remove_sink(sink)
    assert [event.message for event in events] == ["once"]


def test_a_record_that_cannot_be_formatted_does_not_end_its_caller(
    logger: logging.Logger, events: list[LogEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.warning("%d", "no number")
    assert events == []


def test_an_unexpected_exception_is_an_event_with_its_places_and_without_its_text(
    events: list[LogEvent],
) -> None:
    try:
        raise KeyError(CANARY)
    except KeyError as error:
        internal_error("pattern 'mine' of run c.1", error, "pattern")
    (event,) = events
    assert (event.name, event.level) == ("error.unexpected", LogLevel.ERROR)
    assert event.data["exception"] == "KeyError"
    assert "test_local_log.py" in event.data["frames"][-1]
    assert CANARY not in event.model_dump_json()


def test_the_formatter_says_no_more_than_the_record(events: list[LogEvent]) -> None:
    record = logging.LogRecord("a", logging.ERROR, "f", 1, "text", None, None)
    assert json.loads(JsonFormatter().format(record)).keys() == {"at", "level", "logger", "message"}


def test_a_flood_of_one_logger_is_limited_and_counted_and_leaves_room_for_others(
    logger: logging.Logger, events: list[LogEvent]
) -> None:
    (handler,) = logger.handlers
    assert isinstance(handler, RecordHandler)
    handler.limit.per_minute = 5
    for number in range(10_000):
        logger.warning("flood %d", number)
    logger.error("an error of the same logger")
    other = logging.getLogger("tests.other")
    other.addHandler(handler)
    other.warning("of another logger")
    other.removeHandler(handler)
    assert [event.message for event in events] == [
        *(f"flood {number}" for number in range(5)),
        "an error of the same logger",
        "of another logger",
    ]
    handler.tell_left_out()  # the minute is not over
    assert len(events) == 7
    handler.tell_left_out(now=True)
    handler.tell_left_out(now=True)
    assert len(events) == 8
    told = events[-1]
    assert (told.name, told.level) == ("record.left_out", LogLevel.WARNING)
    assert told.data == {"logger": "tests.local_log", "count": 9_995}


def test_loggers_without_number_are_counted_together() -> None:
    limit = RecordLimit(1)
    for number in range(5_000):
        limit.allows(f"logger {number}", LogLevel.WARNING)
    assert limit.left_out(now=True) == {("other loggers", LogLevel.WARNING): 3_999}


def test_a_record_of_10_mb_is_cut(logger: logging.Logger, events: list[LogEvent]) -> None:
    logger.warning("%s", "x" * 10_000_000)
    assert len(events[0].message) < 20_000
