"""The commands of operators: tables, `--json`, and changes that need `--yes` where nobody can be asked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.jetstream import enqueue
from actors.cli.lines import LineReader
from actors.cli.main import root
from actors.cli.operator import confirm, print_table
from actors.logs.event_form import encoded_event, subject_of
from orchestration.log_events import LogEvent
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    backends = [
        ("n1", EchoBackend(EchoSettings(models=("echo",)))),
        ("n2", EchoBackend(EchoSettings(models=("echo",)))),
        ("paced", EchoBackend(EchoSettings(models=("slow",), speed=20))),
    ]
    with running_cluster(backends, agents=True) as running:
        yield running


def say(cluster: Cluster, *words: str) -> Result:
    return CliRunner().invoke(root, [*words, "--nats", cluster.nats.url], catch_exceptions=False)


def done(cluster: Cluster, *words: str) -> str:
    result = say(cluster, *words)
    assert result.exit_code == 0, result.output
    return result.stdout


def as_json(cluster: Cluster, *words: str) -> Any:
    return json.loads(done(cluster, *words, "--json"))


LONG_RUN = {
    "model": "orchestra/single",
    "messages": [{"role": "user", "content": "word " * 200}],
    "orchestra": {"model": "slow"},
}
CHANGES = (
    ("nodes", "drain", "n1"),
    ("nodes", "label", "n1", "zone=eu"),
    ("nodes", "remove", "n1"),
    ("models", "pin", "echo"),
    ("models", "unpin", "echo"),
    ("models", "pull", "smollm2-135m", "--node", "n1"),
    ("queues", "pause", "runs"),
    ("queues", "resume", "runs"),
    ("runs", "cancel", "abc.1"),
    ("breakers", "hold", "echo", "n1"),
    ("breakers", "reset", "--node", "n1"),
    ("cache", "clear"),
    ("patterns", "disable", "debate"),
    ("jobs", "dead", "drop", "7"),
)


@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
def test_a_change_without_yes_is_refused_where_nobody_can_be_asked(
    cluster: Cluster, words: tuple[str, ...]
) -> None:
    result = say(cluster, *words)
    assert result.exit_code == 2
    assert "add --yes" in result.stderr


def test_nodes_are_listed_labelled_and_shown(cluster: Cluster) -> None:
    assert done(cluster, "nodes", "label", "n1", "zone=eu", "--yes") == "n1: zone=eu\n"
    lines = done(cluster, "nodes", "list").splitlines()
    assert lines[0].split() == ["node", "state", "backend", "running", "in", "memory", "offered", "labels"]
    assert lines[1].split()[:3] == ["n1", "serving", "echo"]
    assert lines[1].endswith("zone=eu")
    assert [row["id"] for row in as_json(cluster, "nodes", "list")] == ["n1", "n2", "paced"]
    assert json.loads(done(cluster, "nodes", "show", "n1"))["labels"] == {"zone": "eu"}
    assert done(cluster, "nodes", "label", "n1", "zone-", "--yes") == "n1: no labels\n"
    assert say(cluster, "nodes", "label", "n1", "zone", "--yes").exit_code == 2
    refused = say(cluster, "nodes", "drain", "paced", "--yes")
    assert refused.exit_code == 2
    assert "is the last one that serves slow" in refused.stderr


def test_a_queue_is_paused_listed_purged_and_resumed(cluster: Cluster) -> None:
    paused = done(cluster, "queues", "pause", "generations/echo", "--reason", "a test", "--yes")
    assert paused == "queue generations/echo is paused; 0 wait\n"
    body = {"model": "echo", "messages": [{"role": "user", "content": "a"}]}
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(httpx.post, f"{cluster.base_url}/chat/completions", json=body, timeout=30)

        def waiting() -> int:
            rows = as_json(cluster, "queues", "list")
            return int(next(row["waiting"] for row in rows if row["name"] == "generations/echo"))

        cluster.wait(lambda: waiting() == 1)
        row = next(
            line for line in done(cluster, "queues", "list").splitlines() if "generations/echo" in line
        )
        assert row.endswith(": a test")
        refused = say(cluster, "queues", "purge", "generations/echo")
        assert (refused.exit_code, "End the 1 that wait" in refused.stderr) == (2, True)
        purged = done(cluster, "queues", "purge", "generations/echo", "--reason", "wrong", "--yes")
        assert purged == "1 of queue generations/echo have ended; 0 wait\n"
        assert asked.result().json()["error"]["message"].endswith(": wrong")
    assert done(cluster, "queues", "resume", "generations/echo", "--yes").endswith("goes on; 0 wait\n")


def test_runs_are_listed_watched_and_cancelled(cluster: Cluster) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(httpx.post, f"{cluster.base_url}/chat/completions", json=LONG_RUN, timeout=60)
        cluster.wait(lambda: bool(as_json(cluster, "runs", "list")))
        (run,) = as_json(cluster, "runs", "list", "--pattern", "single")
        assert run["id"] in done(cluster, "runs", "list")
        assert json.loads(done(cluster, "runs", "show", run["id"]))["events"][0]["type"] == "started"
        tried = say(cluster, "runs", "cancel", "--pattern", "single", "--dry-run")
        assert "1 runs would be cancelled" in tried.stderr
        cancelled = done(cluster, "runs", "cancel", run["id"], "--reason", "enough", "--yes")
        assert cancelled == f"{run['id']} is cancelled\n"
        assert asked.result().status_code == 499
        events = [json.loads(line) for line in done(cluster, "runs", "watch", run["id"]).splitlines()]
        assert (events[0]["type"], events[-1]["type"]) == ("started", "ended")
    assert say(cluster, "runs", "cancel", run["id"], "--all", "--yes").exit_code == 2
    assert "--all" in say(cluster, "runs", "cancel", "--yes").stderr
    assert "add --reason" in say(cluster, "runs", "cancel", "--all", "--yes").stderr
    assert say(cluster, "runs", "watch", "abc.1").exit_code == 2


def test_runs_that_have_ended_are_listed_by_their_time(cluster: Cluster) -> None:
    now = time.time()
    for number, (name, ago) in enumerate((("ended", 7200), ("failed", 60), ("cancelled", 30))):
        event = LogEvent(
            id=f"past/{number}",
            at=now - ago,
            name=f"run.{name}",
            run=f"past.{number}",
            caller="olga",
            pattern="single",
            data={"duration_s": 1.5, "output_tokens": 7} | ({"error": "no_node"} if name == "failed" else {}),
        )
        cluster.call(enqueue(cluster.bus, subject_of(event), encoded_event(event, 65_536), {}))
    mine = ("runs", "list", "--ended", "--caller", "olga")
    assert [row["run"] for row in as_json(cluster, *mine)] == ["past.2", "past.1", "past.0"]
    assert [row["run"] for row in as_json(cluster, *mine, "--since", "1h")] == ["past.2", "past.1"]
    assert [row["run"] for row in as_json(cluster, *mine, "--limit", "1")] == ["past.2"]
    assert as_json(cluster, *mine, "--pattern", "debate") == []
    lines = done(cluster, *mine).splitlines()
    assert lines[0].split() == ["run", "outcome", "pattern", "model", "caller", "took", "tokens", "ended"]
    assert lines[2].split()[:3] == ["past.1", "no_node", "single"]
    assert "add --ended" in say(cluster, "runs", "list", "--since", "1h").stderr
    assert "use --since" in say(cluster, *mine, "--older-than", "3").stderr
    assert "neither a duration" in say(cluster, *mine, "--since", "soon").stderr


def test_breakers_cache_and_processes_are_shown_and_changed(cluster: Cluster) -> None:
    assert (
        done(cluster, "breakers", "hold", "echo", "n1", "--yes") == "the breaker of echo on n1 is held open\n"
    )
    assert [row["name"] for row in as_json(cluster, "breakers", "list")] == ["echo on n1"]
    assert "open" in done(cluster, "breakers", "list")
    assert done(cluster, "breakers", "reset", "--node", "n1", "--yes") == "closed: echo on n1\n"
    assert "shared bucket" in done(cluster, "cache", "show")
    assert as_json(cluster, "cache", "show")["shared"]["entries"] >= 0
    cleared = done(cluster, "cache", "clear", "--model", "echo", "--yes")
    assert cleared == "cleared: cached responses of model echo\n"
    assert as_json(cluster, "processes") == []  # these roles run in the process of the tests


def test_models_are_pinned_and_pulls_are_refused_with_the_node_s_reason(cluster: Cluster) -> None:
    pinned = done(cluster, "models", "pin", "echo", "--node", "n1", "--yes")
    assert pinned == "echo on node n1: is pinned\n"
    assert done(cluster, "models", "unpin", "echo", "--yes").splitlines() == [
        "echo on node n1: is not pinned",
        "echo on node n2: is not pinned",
    ]
    refused = say(cluster, "models", "pull", "smollm2-135m", "--node", "n1", "--yes")
    assert (refused.exit_code, "nothing can be pulled to it" in refused.stderr) == (2, True)


def test_a_pattern_is_disabled_which_the_status_mentions_and_enabled(cluster: Cluster) -> None:
    disabled = done(cluster, "patterns", "disable", "debate", "--reason", "too dear", "--yes")
    assert disabled == "pattern debate is disabled\n"
    assert any(
        line.startswith("pattern debate is disabled by ") and line.endswith(": too dear")
        for line in as_json(cluster, "status")["warnings"]
    )
    assert done(cluster, "patterns", "enable", "debate", "--yes") == "pattern debate is enabled\n"


def test_usage_is_shown_as_a_table_or_as_json(cluster: Cluster) -> None:
    assert done(cluster, "usage").split()[:3] == ["caller", "model", "requests"]
    assert as_json(cluster, "usage", "--caller", "nobody")["data"] == []


EMPTY_FILTERS = (
    ("cache", "clear", "--model", "", "--yes"),
    ("cache", "clear", "--namespace", " ", "--yes"),
    ("breakers", "reset", "--node", "n1", "--model", "", "--yes"),
    ("runs", "cancel", "--model", "slow", "--caller", "", "--reason", "a test", "--yes"),
    ("runs", "list", "--pattern", ""),
    ("runs", "list", "--ended", "--since", ""),
    ("usage", "--caller", ""),
    ("models", "pin", "echo", "--node", "", "--yes"),
    ("models", "unload", "echo", "--node", ""),
    ("logs", "--caller", ""),
)


@pytest.mark.parametrize("words", EMPTY_FILTERS, ids=" ".join)
def test_an_empty_filter_does_not_mean_all(cluster: Cluster, words: tuple[str, ...]) -> None:
    """A script says `cache clear --model "$MODEL"`, and its variable is not set."""
    refused = say(cluster, *words)
    assert refused.exit_code == 2
    assert "it is empty; leave the option out to mean all" in refused.stderr


@pytest.mark.parametrize(
    "words", [*CHANGES, ("models", "unload", "echo"), ("keys", "add", "olga")], ids=" ".join
)
def test_a_reason_that_cannot_be_recorded_is_refused_before_the_change(
    cluster: Cluster, words: tuple[str, ...]
) -> None:
    refused = say(cluster, *words, "--reason", "x" * 501, "--yes")
    assert refused.exit_code == 2
    assert "it has 501 characters; the limit is 500" in refused.stderr
    assert all("echo" in row["loaded"] for row in as_json(cluster, "nodes", "list") if row["id"] == "n1")


def test_an_unknown_run_does_not_keep_the_others_from_being_cancelled(cluster: Cluster) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(httpx.post, f"{cluster.base_url}/chat/completions", json=LONG_RUN, timeout=60)
        cluster.wait(lambda: bool(as_json(cluster, "runs", "list", "--limit", "1")))
        (run,) = as_json(cluster, "runs", "list")
        cancelled = say(cluster, "runs", "cancel", "abc.1", run["id"], "abc.2", "--yes", "--json")
        assert cancelled.exit_code == 2
        assert [each["id"] for each in json.loads(cancelled.stdout)] == [run["id"]]
        assert all(f"no run, job or request '{each}'" in cancelled.stderr for each in ("abc.1", "abc.2"))
        assert asked.result().status_code == 499


@pytest.mark.parametrize(
    "words",
    [
        ("nodes", "label", "n1", "zone=eu", "zone-"),
        ("nodes", "label", "n1", "zone=eu", "zone=us"),
        ("config", "set", "zone=1", "zone=2"),
    ],
    ids=" ".join,
)
def test_a_name_is_not_given_two_values(cluster: Cluster, words: tuple[str, ...]) -> None:
    refused = say(cluster, *words, "--yes")
    assert (refused.exit_code, "zone is given twice" in refused.stderr) == (2, True)


def test_a_time_before_the_begin_is_refused(cluster: Cluster) -> None:
    refused = say(cluster, "logs", "--since", "1h", "--until", "2h")
    assert (refused.exit_code, "--until 2h is before --since 1h" in refused.stderr) == (2, True)


@pytest.mark.parametrize("words", [("config",), ("nodes", "list"), ("status",)], ids=" ".join)
def test_a_nats_server_that_is_not_there_is_named(words: tuple[str, ...]) -> None:
    failed = CliRunner().invoke(root, [*words, "--nats", "nats://127.0.0.1:1"], catch_exceptions=False)
    assert failed.exit_code == 3
    assert failed.stderr.startswith("orchestra: no NATS server answers at nats://127.0.0.1:1")


def test_ctrl_c_is_the_way_to_end_top(cluster: Cluster) -> None:
    words = (sys.executable, "-m", "actors.cli", "top", "--json", "--interval", "0.5", "--nats")
    with subprocess.Popen([*words, cluster.nats.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as top:
        assert top.stdout is not None
        assert [node["id"] for node in json.loads(top.stdout.readline())["nodes"]] == ["n1", "n2", "paced"]
        top.send_signal(signal.SIGINT)
        _, stderr = top.communicate(timeout=60)
    assert (top.returncode, stderr) == (0, b"")


def test_a_narrow_terminal_cuts_off_no_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    setting = "gateway.limits.per_caller.requests_in_flight"
    print_table(
        ("run", "setting", "why"), [("run_0123456789abcdef", setting, "because of the demonstration")]
    )
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert len(lines) > 2, "it has fit, so nothing was tested"
    assert lines[1].startswith("run_0123456789abcdef ")
    folded = "".join("".join(line[20:].split()) for line in lines)
    assert "…" not in folded
    assert sorted(folded) == sorted("settingwhy" + setting + "becauseofthedemonstration")


@pytest.mark.parametrize("typed", ["y\n", "YES\n", "n\n", "\n", "yesterday\n", ""])
async def test_the_event_loop_runs_while_a_person_thinks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str
) -> None:
    """A connection that answers no ping for minutes is closed by NATS, and the change would fail."""
    ours, theirs = os.pipe()
    monkeypatch.setattr("actors.cli.operator.LineReader", lambda: LineReader(ours))
    with monkeypatch.context() as patched:
        patched.setattr(sys.stdin, "isatty", lambda: True)
        asking = asyncio.ensure_future(confirm("Drain node n1", yes=False))
        await eventually(lambda: "Drain node n1? [y/N]: " in capsys.readouterr().err)
        assert not asking.done()
        os.write(theirs, typed.encode())
        os.close(theirs)
        if typed in ("y\n", "YES\n"):
            await asking
        else:
            with pytest.raises(click.Abort):
                await asking
    os.close(ours)


@pytest.mark.parametrize("verb", ["retry", "drop"])
def test_an_unknown_dead_letter_does_not_keep_the_others_from_being_tried(
    cluster: Cluster, verb: str
) -> None:
    tried = say(cluster, "jobs", "dead", verb, "98", "99", "--yes")
    assert tried.exit_code == 2
    assert tried.stderr.splitlines() == ["orchestra: no dead letter 98", "orchestra: no dead letter 99"]


def test_a_job_is_cancelled_with_a_reason_and_shown_as_json(cluster: Cluster) -> None:
    body = {"model": "slow", "messages": [{"role": "user", "content": "a b c"}]}
    job = httpx.post(f"{cluster.url}/v1/jobs", json=body, timeout=30).json()["id"]
    cancelled = json.loads(done(cluster, "jobs", "cancel", job, "--reason", "stale", "--yes", "--json"))
    assert (cancelled["id"], cancelled["status"]) == (job, "cancelled")
    assert done(cluster, "jobs", "cancel", job) == "cancelled\n"
    (record,) = done(cluster, "logs", "--kind", "admin", "--run", job, "--json").splitlines()
    assert (
        json.loads(record)["data"] | {"action": "jobs.cancel", "reason": "stale"}
        == json.loads(record)["data"]
    )
