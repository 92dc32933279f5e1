"""`orchestra logs` on a stream with the events of two runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner, Result

from actors.cli.logs import moment_of
from actors.cli.main import root
from actors.launch.process import run
from orchestration.errors import InvalidRequest
from orchestration.log_events import LogEvent, LogLevel
from tests.fixtures.log_stream import logs_bus, store
from tests.fixtures.nats import RunningNats, module_nats

__all__ = ["module_nats"]

BEGAN = time.time() - 60


def events() -> list[LogEvent]:
    about = {"run": "c.1", "caller": "ann", "trace": "a" * 32}
    return [
        LogEvent(id="5", at=BEGAN - 90_000, name="node.joined", node="n2", message="node n2 joined"),
        LogEvent(id="1", at=BEGAN, name="run.started", message="debate started", **about),
        LogEvent(id="2", at=BEGAN + 1.5, name="step.ended", step="draft-1", model="m", node="n1", **about),
        LogEvent(id="3", at=BEGAN + 2, name="run.ended", message="answered \x1b[31m\nafter 2 s", **about),
        LogEvent(id="4", at=BEGAN + 3, name="run.failed", level=LogLevel.ERROR, run="c.2", caller="bob"),
    ]


@pytest.fixture(scope="module")
def filled(nats: RunningNats) -> RunningNats:
    async def fill() -> None:
        bus = await logs_bus(nats.url)
        await store(bus, *events())
        await bus.close()

    run(fill())
    return nats


def logs(server: RunningNats, *options: str) -> Result:
    return CliRunner().invoke(root, ["logs", "--nats", server.url, *options])


def ids(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [json.loads(line)["id"] for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "51234"),
        (["--run", "c.1"], "123"),
        (["--trace", "A" * 32], "123"),
        (["--level", "error"], "4"),
        (["--caller", "bob"], "4"),
        (["--kind", "run"], "134"),
        (["--kind", "run", "--kind", "node"], "5134"),
        (["--since", "1h"], "1234"),
        (["--until", "1h"], "5"),
        (["--node", "n1"], "2"),
        (["--limit", "2"], "34"),
        (["--run", "no.such"], ""),
    ],
)
def test_options_choose_the_events(filled: RunningNats, options: list[str], expected: str) -> None:
    assert ids(logs(filled, "--json", *options)) == list(expected)


def test_a_run_is_a_story_with_relative_times_in_one_line_for_each_event(filled: RunningNats) -> None:
    result = logs(filled, "--run", "c.1")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["+0.000", "+1.500", "+2.000"]
    assert "step.ended" in lines[1]
    assert "step=draft-1" in lines[1]
    assert "\x1b" not in result.stdout


def test_nothing_found_is_said_on_stderr(filled: RunningNats) -> None:
    result = logs(filled, "--run", "no.such")
    assert result.stdout == ""
    assert "no event matches" in result.stderr


@pytest.mark.parametrize("text", ["yesterday", "-1h", "1y", "2026-13-01", ""])
def test_a_time_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="neither a duration"):
        moment_of(text, "since")


def test_follow_goes_on_with_new_events_until_it_is_interrupted(filled: RunningNats) -> None:
    command = [
        sys.executable,
        "-m",
        "actors.cli",
        "logs",
        "--nats",
        filled.url,
        "-f",
        "--json",
        "--run",
        "c.9",
    ]
    event = LogEvent(id="9", at=time.time(), name="run.ended", run="c.9")

    async def add() -> None:
        bus = await logs_bus(filled.url)
        await store(bus, event)
        await bus.close()

    run(add())
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["id"] == "9"
        event = event.model_copy(update={"id": "10"})
        run(add())
        assert json.loads(process.stdout.readline())["id"] == "10"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def ship(server: RunningNats, *options: str) -> Result:
    return CliRunner().invoke(root, ["logs", "ship", "--nats", server.url, *options])


def test_ship_without_an_address_of_mongodb_says_what_to_set(filled: RunningNats) -> None:
    result = ship(filled)
    assert result.exit_code == 2
    assert "logs.mongodb.url" in result.output


def test_ship_with_an_address_that_is_none_does_not_show_the_password(filled: RunningNats) -> None:
    result = ship(filled, "--mongodb", "mongodb://me:se:cret@host/")
    assert result.exit_code == 2
    assert "is no address of MongoDB" in result.output
    assert "cret" not in result.output
