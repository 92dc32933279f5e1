"""`orchestra eval` on the real model, as a person runs it, and as it is killed and stopped."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.node.backend_factory import onnx_backend
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.models import smollm2_folder
from tests.fixtures.process import Process, orchestra

QUESTIONS = (
    {"question": "Which city is the capital of France?", "answer": "Paris", "kind": "contains"},
    {"question": "What do bees make? Answer in one word.", "answer": "honey", "kind": "contains"},
    {"question": "What is 2 + 2?", "answer": 4},
    {"question": "Which is a color? A) red B) seven C) Tuesday", "answer": "A"},
    {"question": "What is the chemical formula of water?", "answer": "(?i)h.?2.?o", "kind": "regex"},
    {"question": "How many days does a week have?", "answer": 7, "id": "week"},
)
PATTERNS = ("single", "self-consistency")
ALL = len(QUESTIONS) * len(PATTERNS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster([("smollm2", onnx_backend([smollm2_folder()], {}))], agents=True) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "facts.jsonl"
    file.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    return file


def evaluate(cluster: Cluster, file: Path, *words: str) -> Process:
    said = ("--nats", cluster.nats.url, "--patterns", ",".join(PATTERNS), "--budget", "200")
    limits = ("--max-tokens", "16", "--concurrency", "1", "--out", str(file.parent / "out"))
    return orchestra("eval", str(file), *said, *limits, *words)


def lines(file: Path) -> list[dict[str, Any]]:
    results = file.parent / "out" / "results.jsonl"
    return [json.loads(line) for line in results.read_bytes().splitlines()] if results.exists() else []


def test_it_is_killed_in_the_middle_resumed_and_comes_to_a_table(cluster: Cluster, file: Path) -> None:
    with evaluate(cluster, file) as process:
        asyncio.run(eventually(lambda: len(lines(file)) >= 4, within_s=60))
        process.send(signal.SIGKILL)
        process.wait()
    results = file.parent / "out" / "results.jsonl"
    before = lines(file)
    assert len(before) - 1 < ALL
    with results.open("ab") as cut:
        cut.write(b'{"pattern": "single", "quest')
    with evaluate(cluster, file, "--resume") as process:
        assert process.wait(within_s=120) == 0, process.said
        said = process.said
    found = lines(file)
    assert found[: len(before)] == before
    assert len({(each["pattern"], each["question"]) for each in found[1:]}) == len(found) - 1 == ALL
    report = json.loads((file.parent / "out" / "report.json").read_text())
    rows = {row["pattern"]: row for row in report["patterns"]}
    assert set(rows) == set(PATTERNS)
    single, baseline = rows["single"], rows["self-consistency"]
    assert single["questions"] == baseline["questions"] == 6
    assert single["right"] >= 3
    assert not single["failures"] | baseline["failures"]
    assert single["tokens"]["mean"] < baseline["tokens"]["mean"] <= baseline["tokens"]["maximum"] <= 220
    assert single["against"]["wins"] - single["against"]["losses"] == single["right"] - baseline["right"]
    assert (file.parent / "out" / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert f"{single['right']} of 6" in said
    assert f"{ALL}/{ALL}" in said


def test_ctrl_c_keeps_what_was_answered_and_says_how_to_go_on(cluster: Cluster, file: Path) -> None:
    with evaluate(cluster, file) as process:
        asyncio.run(eventually(lambda: len(lines(file)) >= 2, within_s=60))
        process.send(signal.SIGINT)
        assert process.wait(within_s=60) == 130
        process.wait_for("continue with --resume")
    assert 1 < len(lines(file)) < ALL
