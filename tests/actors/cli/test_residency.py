"""`orchestra models load|unload` and `orchestra status` on a node whose memory cannot hold all it offers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actors.bus.bus import Bus, BusSettings
from actors.cli.main import root
from actors.logs.filter import LogFilter
from actors.logs.reader import LogReader
from orchestration.log_events import LogKind
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import orchestra

NODE = "residency-node"
A, B = "residency-a", "residency-b"


@pytest.fixture(scope="module")
def node(nats_server: RunningNats, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An echo node, a process of its own, with memory for one of its two models; the URL of its NATS."""
    data = tmp_path_factory.mktemp("residency")
    words = ("node", "--backend", "echo", "--id", NODE, "--serve", A, "--serve", B, "--nats", nats_server.url)
    memory = ("--model-mb", "100", "--memory-mb", "150", "--load-s", "0.01", "--data", str(data))
    with orchestra(*words, *memory) as process:
        process.wait_for("serves")
        yield nats_server.url


def say(url: str, *words: str) -> Result:
    return CliRunner().invoke(root, [*words, "--nats", url], catch_exceptions=False)


def test_a_model_is_loaded_by_name_and_another_leaves_for_it(node: str) -> None:
    loaded = say(node, "models", "load", B)
    assert loaded.exit_code == 0, loaded.stderr
    assert loaded.stdout.startswith(f"{B} is loaded in ")
    assert loaded.stdout.endswith(f" on node {NODE}\n")
    assert say(node, "models", "load", B, "--node", NODE).stdout == f"{B} is loaded already on node {NODE}\n"
    status = say(node, "status").stdout
    assert f"{B}, ({A}) " in status
    assert "95.4 MiB of 143 MiB" in status
    assert f"{NODE}: 1 loads, 1 unloads, 1 swaps" in status
    (found,) = [
        each for each in json.loads(say(node, "status", "--json").stdout)["nodes"] if each["id"] == NODE
    ]
    assert (found["models"], found["offered"]) == ([B], [A])
    again = json.loads(say(node, "models", "load", B, "--json", "--yes", "--reason", "why not").stdout)
    assert [(each["node"], each["loaded"], each["changed"]) for each in again] == [(NODE, True, False)]
    unloaded = say(node, "models", "unload", B)
    assert unloaded.stdout.startswith(f"{B} is unloaded in ")
    assert say(node, "models", "unload", B).stdout == f"{B} is unloaded already on node {NODE}\n"


def test_loads_and_unloads_by_command_are_in_the_audit(node: str) -> None:
    assert say(node, "models", "unload", A).exit_code == 0
    assert say(node, "models", "load", B).exit_code == 0

    async def recorded() -> list[tuple[str, str]]:
        bus = await Bus.connect(BusSettings(url=node), name="test")
        page = await LogReader(bus).page(LogFilter(kinds=(LogKind.ADMIN,), node=NODE), limit=10)
        await bus.close()
        return [(stored.event.data["action"], stored.event.model) for stored in page.events]

    assert asyncio.run(recorded())[0] == ("models.load", B)


def test_the_list_says_who_serves_a_model_and_what_is_in_memory(node: str) -> None:
    assert say(node, "models", "load", A).exit_code == 0
    rows = {row["name"]: row for row in json.loads(say(node, "models", "list", "--json").stdout)}
    assert rows[A]["nodes"] == {NODE: True}
    assert rows[B]["nodes"] == {NODE: False}
    assert rows[A]["backends"] == ["echo"]
    assert rows["smollm2-135m"]["nodes"] == {}
    table = say(node, "models", "list").stdout.splitlines()
    assert "served by" in table[0]
    assert "context" in table[0]
    assert any(line.startswith(B) and f"{NODE} (not loaded)" in line for line in table)
    assert any(line.startswith("all-minilm-l6-v2") for line in table)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("load", "residency-c"), 2, "no model 'residency-c'; known models: "),
        (("unload", A, "--node", "nobody"), 5, "no node 'nobody' is alive"),
        (("load", "residency-c", "--node", NODE), 2, "no model 'residency-c'; known models: residency-a,"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    node: str, words: tuple[str, ...], code: int, said: str
) -> None:
    result = say(node, "models", *words)
    assert result.exit_code == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_options_of_echo_are_refused_for_other_backends(tmp_path: Path) -> None:
    words = ["node", "--backend", "onnx", "--model-mb", "5", "--data", str(tmp_path)]
    result = CliRunner().invoke(root, words)
    assert result.exit_code == 2
    assert "--model-mb does not go with --backend onnx" in result.stderr
