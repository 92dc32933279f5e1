"""The log lines of a process."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from actors.launch.process import configure_logging, set_log_level
from actors.telemetry.event_log import EventLog
from actors.telemetry.local_log import RecordHandler
from actors.telemetry.settings import TelemetrySettings
from orchestration.log_events import LogEvent


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, which is afterwards as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_level_of_log_lines_keeps_nothing_from_the_central_log(
    root_logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[LogEvent] = []
    central = EventLog()
    central.add_sink(events.append)
    configure_logging(TelemetrySettings(log_level="ERROR"))
    root_logger.addHandler(RecordHandler(central, "WARNING", ()))
    logging.getLogger("tests").warning("first")
    set_log_level(TelemetrySettings(log_level="WARNING"))
    logging.getLogger("tests").warning("second")
    logging.getLogger("tests").info("third")
    assert [event.message for event in events] == ["first", "second"]
    assert capfd.readouterr().err.count("WARNING") == 1
