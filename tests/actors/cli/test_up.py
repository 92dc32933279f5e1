"""`orchestra up` as a user runs it, and what stands in its way."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.fixtures.process import NO_EMBEDDER, Process, orchestra
from tests.fixtures.zero_upstream import zero_upstream

HTTP = "127.0.0.1:0"


def up(data: Path, *words: str) -> Process:
    return orchestra("up", "--data", str(data), "--http", HTTP, "--no-model", *words)


def urls(line: str) -> tuple[str, str]:
    """The HTTP and the NATS URL of the line that says ready."""
    found = re.search(r"(http://\S+) · (nats://\S+)", line)
    assert found is not None, line
    return found[1], found[2]


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "actors.cli", *words]
    environment = os.environ | NO_EMBEDDER | more
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def test_up_prints_one_line_when_ready_and_stops_with_its_server_on_ctrl_c(tmp_path: Path) -> None:
    with up(tmp_path) as process:
        line = process.wait_for("Orchestra is ready")
        http, _ = urls(line)
        with urllib.request.urlopen(f"{http}/healthz", timeout=30) as answer:
            assert answer.status == 200
        children = psutil.Process(process.pid).children()
        assert [child.name() for child in children] == ["nats-server"]
        process.send(signal.SIGINT)
        assert process.wait() == 0
        psutil.wait_procs(children, timeout=30)
        assert not any(child.is_running() for child in children)


def test_a_second_up_on_the_same_data_is_refused_naming_the_folder(tmp_path: Path) -> None:
    with up(tmp_path) as first:
        first.wait_for("Orchestra is ready")
        with up(tmp_path) as second:
            assert second.wait() != 0
            second.wait_for(str(tmp_path), within_s=30)


def test_a_busy_http_port_is_named_before_anything_else_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = run("up", "--data", str(tmp_path), "--http", f"127.0.0.1:{port}", "--no-model")
    assert refused.returncode not in (0, 2)
    assert str(port) in refused.stderr
    assert "--http" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "nats").exists()


def test_a_busy_port_is_told_before_a_model_is_fetched(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        http = run("up", "--data", str(tmp_path), "--http", f"127.0.0.1:{port}")
        nats = run("up", "--data", str(tmp_path), "--http", HTTP, ORCHESTRA_NATS_SERVER__PORT=str(port))
    for refused in (http, nats):
        assert refused.returncode not in (0, 2)
        assert str(port) in refused.stderr
        assert "fetching" not in refused.stderr
    assert not (tmp_path / "models").exists()


def test_other_commands_find_the_data_folder_of_an_up_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("status").returncode == 3
    with up(tmp_path / "one") as one:
        one.wait_for("Orchestra is ready")
        assert run("status", "--json").returncode == 0
        shown = json.loads(run("config", "--json").stdout)["data"]
        assert shown["value"] == str(tmp_path / "one")
        assert shown["source"] == "the running `orchestra up`"
        with up(tmp_path / "two") as two:
            two.wait_for("Orchestra is ready")
            unclear = run("status")
            assert unclear.returncode == 2
            assert all(str(tmp_path / name) in unclear.stderr for name in ("one", "two"))
            assert run("status", "--data", str(tmp_path / "two")).returncode == 0
            os.kill(two.pid, signal.SIGKILL)
            two.wait()
        # The nats-server of the one that was killed holds the folder for a moment longer.
        assert any(run("status").returncode == 0 for _ in range(20))
    assert run("status").returncode == 3


def test_up_goes_on_when_its_terminal_closes(tmp_path: Path) -> None:
    with up(tmp_path) as process:
        http, _ = urls(process.wait_for("Orchestra is ready"))
        process.send(signal.SIGHUP)
        for _ in range(3):
            with urllib.request.urlopen(f"{http}/healthz", timeout=30) as answer:
                assert answer.status == 200
        process.send(signal.SIGINT)
        assert process.wait() == 0


def test_where_output_is_no_terminal_the_answer_has_lines_of_its_own(tmp_path: Path) -> None:
    with up(tmp_path) as process:
        _, nats = urls(process.wait_for("Orchestra is ready"))
        with orchestra("node", "--backend", "echo", "--nats", nats) as node:
            node.wait_for("serves echo")
            words = ("ask", "one two", "--pattern", "auto", "--model", "echo", "--data", str(tmp_path))
            with orchestra(*words) as asked:
                asked.wait_for("· answer: ")
                assert asked.wait() == 0
    lines = asked.said.splitlines()
    assert lines[-2].endswith("one two")
    assert "·" not in lines[-2]


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    refused = run("up", "--data", str(file), "--http", HTTP, "--no-model")
    assert refused.returncode not in (0, 2)
    assert str(file) in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_nats_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{free.getsockname()[1]}"
    refused = run("up", "--data", str(tmp_path), "--http", HTTP, "--no-model", "--nats", url)
    assert refused.returncode == 3
    assert url in refused.stderr


def test_nats_server_does_not_outlive_an_up_that_is_killed(tmp_path: Path) -> None:
    with up(tmp_path) as process:
        process.wait_for("Orchestra is ready")
        children = psutil.Process(process.pid).children()
        assert children
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        gone, alive = psutil.wait_procs(children, timeout=30)
        assert gone
        assert not alive


def test_up_goes_on_when_its_nats_server_is_killed(tmp_path: Path) -> None:
    with up(tmp_path) as process:
        http, nats = urls(process.wait_for("Orchestra is ready"))
        echo = ("node", "--backend", "echo", "--nats", nats, "--id", "echo-1")
        with orchestra(*echo) as node:
            node.wait_for("serves echo")
            (server,) = psutil.Process(process.pid).children()
            server.kill()
            words = ("ask", "still here", "--pattern", "single", "--model", "echo", "--data", str(tmp_path))
            # The first asks may come while it restarts.
            answers = (run(*words) for _ in range(20))
            asked = next(answer for answer in answers if answer.returncode == 0)
            assert asked.stdout.strip() == "still here"
        assert http


def test_ask_reaches_a_node_through_the_cluster_and_reports_as_json(tmp_path: Path) -> None:
    with up(tmp_path) as process:
        _, nats = urls(process.wait_for("Orchestra is ready"))
        with orchestra("node", "--backend", "echo", "--nats", nats, "--id", "echo-1") as node:
            node.wait_for("serves echo")
            words = ("ask", "one two", "--pattern", "single", "--model", "echo", "--data", str(tmp_path))
            answered = run(*words, "--json")
            assert answered.returncode == 0, answered.stderr
            report = json.loads(answered.stdout)
            assert report["answer"] == "one two"
            assert report["node"] == "echo-1"
            assert "trace_id" not in report  # nothing is traced here
            assert report["run"]
            unknown = run("ask", "x", "--pattern", "single", "--model", "nope", "--data", str(tmp_path))
            assert unknown.returncode == 2
            assert "echo" in unknown.stderr
            status = json.loads(run("status", "--json", "--data", str(tmp_path)).stdout)
            assert [each["id"] for each in status["nodes"]] == ["echo-1"]
            assert {"up", "node"} <= {each["role"] for each in status["processes"]}
            explained = run("status", "--explain", "echo", "--label", "region=eu", "--data", str(tmp_path))
            assert "echo-1" in explained.stdout
            assert "label region=eu is required, it has none" in explained.stdout


@pytest.mark.parametrize("words", [("ask", "x"), ("status",)])
def test_without_a_cluster_the_exit_code_is_3_and_the_way_out_is_said(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    refused = run(*words, "--data", str(tmp_path))
    assert refused.returncode == 3
    assert "orchestra up" in refused.stderr


def test_bad_usage_has_exit_code_2(tmp_path: Path) -> None:
    assert run("ask").returncode == 2
    assert run("ask", "  ", "--data", str(tmp_path)).returncode == 2
    assert run("node", "--backend", "nothing").returncode == 2
    wrong = run(
        "node", "--backend", "echo", "--base-url", "http://127.0.0.1:1", "--nats", "nats://127.0.0.1:1"
    )
    assert wrong.returncode == 2
    assert "--base-url" in wrong.stderr


def test_up_serves_the_models_of_an_upstream_in_its_own_process(tmp_path: Path) -> None:
    with zero_upstream() as upstream, up(tmp_path, "--base-url", upstream) as process:
        line = process.wait_for("Orchestra is ready")
        http, _ = urls(line)
        assert "bench" in line
        body = {"model": "bench", "messages": [{"role": "user", "content": "hello"}]}
        request = urllib.request.Request(
            f"{http}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert "word" in json.load(answer)["choices"][0]["message"]["content"]


def test_an_upstream_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as nobody:  # bound, but it listens to no one
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        refused = run("up", "--data", str(tmp_path), "--http", HTTP, "--no-model", "--base-url", url)
    assert refused.returncode not in (0, 2)
    assert url in refused.stderr
    assert "Traceback" not in refused.stderr
