"""Asking a cluster: what is refused is asked again, what fails is a result, what concerns all ends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from actors.backends.echo import EchoBackend, EchoSettings
from actors.cli.main import root
from actors.gateway.admission_settings import CallerLimits, LimitsSettings
from actors.gateway.settings import GatewaySettings
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.nats import RunningNats

ONE_AT_ONCE = GatewaySettings(
    http="127.0.0.1:0", limits=LimitsSettings(per_caller=CallerLimits(requests_in_flight=1))
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """It says again what it is asked, to one request at a time; every fifth generation fails."""
    echo = EchoSettings(repeat=False, fail_every=5)
    with running_cluster([("echo", EchoBackend(echo))], gateway=ONE_AT_ONCE, agents=True) as running:
        yield running


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "echoes.jsonl"
    lines = ({"question": f"Say word{n}", "answer": f"word{n}", "kind": "contains"} for n in range(8))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def evaluate(cluster: Cluster, file: Path | str, out: Path, *words: str) -> Result:
    said = ["eval", str(file), "--nats", cluster.nats.url, "--out", str(out), *words]
    return CliRunner().invoke(root, said, catch_exceptions=False)


def kept(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()[1:]]


def test_questions_beyond_a_limit_are_asked_again_until_they_are_answered(
    cluster: Cluster, questions: Path, tmp_path: Path
) -> None:
    words = ("--patterns", "single", "--concurrency", "2", "--limit", "3")
    result = evaluate(cluster, questions, tmp_path / "out", *words)
    assert result.exit_code == 0, result.output
    found = kept(tmp_path / "out")
    assert [each["score"] for each in found] == [1.0] * 3
    assert any(each.get("attempts", 1) > 1 for each in found)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["patterns"][0]["retried"] > 0


def test_a_budget_too_small_for_a_pattern_is_a_failure_that_is_counted_and_asked_again_on_resume(
    cluster: Cluster, questions: Path, tmp_path: Path
) -> None:
    words = ("--patterns", "single", "--concurrency", "1", "--limit", "2", "--budget", "20", "--json")
    result = evaluate(cluster, questions, tmp_path, *words)
    assert result.exit_code == 5
    assert "2 questions failed and count as wrong" in result.stderr
    row = json.loads(result.stdout)["patterns"][0]
    assert row["failures"] == {"budget_exceeded": 2}
    assert row["accuracy"]["mean"] == 0
    assert [each["error"]["code"] for each in kept(tmp_path)] == ["budget_exceeded"] * 2
    evaluate(cluster, questions, tmp_path, *words, "--resume")
    assert len(kept(tmp_path)) == 4


def test_costs_follow_from_the_prices_in_the_settings(
    cluster: Cluster, questions: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "orchestra.toml"
    settings.write_text('[evaluation.prices."echo"]\ninput = 1000\noutput = 0\n')
    words = ("--patterns", "single", "--concurrency", "1", "--limit", "1", "--json")
    result = evaluate(cluster, questions, tmp_path, *words, "--config", str(settings))
    assert result.exit_code == 0, result.output
    read = kept(tmp_path)[0]["models"]["echo"]["prompt_tokens"]
    assert json.loads(result.stdout)["patterns"][0]["cost"] == pytest.approx(read)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--patterns", "single,chorus"), "no model 'orchestra/chorus'; known models: "),
        (("--patterns", "Single!"), "--patterns: 'Single!' is not a name of a pattern"),
        (("--patterns", ","), "--patterns is empty; name at least one"),
        (("--patterns", "ensemble", "--set", "ensemble.voices=3"), "settings of ensemble: "),
        (("--patterns", "single", "--set", "ensemble.samples=3"), "'ensemble' is not in --patterns single"),
        (("--set", "samples=3"), "--set takes PATTERN.FIELD=VALUE"),
        (("--patterns", "single", "--model", "nobody"), "no model 'nobody'"),
        (("--task", "max_terms=2"), "--task does not go with a file"),
        (("--up",), "--up starts a cluster of its own and --nats uses another"),
    ],
)
def test_what_the_cluster_would_refuse_for_every_question_ends_it_in_one_line(
    cluster: Cluster, questions: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    result = evaluate(cluster, questions, tmp_path / "out", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("orchestra: ")


def test_an_unknown_task_and_a_broken_file_are_told_before_a_cluster_is_looked_for(tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text('{"question": "?", "answer": 5}\n{"question": "?"}\n')
    for dataset, said in (
        ("letter_countin", "near it: letter_counting"),
        (str(file), f"{file}, line 2: answer: Field required"),
        ("nowhere.jsonl", "cannot read nowhere.jsonl: No such file"),
    ):
        result = CliRunner().invoke(root, ["eval", dataset, "--data", str(tmp_path / "data")])
        assert result.exit_code == 2
        assert said in result.stderr


def test_a_cluster_that_is_gone_ends_it_after_the_last_attempt(
    nats_server: RunningNats, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRA_EVALUATION__ATTEMPTS", "2")
    monkeypatch.setenv("ORCHESTRA_EVALUATION__MAX_PAUSE_S", "0.01")
    words = ["eval", str(questions), "--nats", nats_server.url, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(root, words)
    assert result.exit_code == 3
    assert "no gateway answers on orchestra.chat" in result.stderr
    assert kept(tmp_path / "out") == []


def test_without_a_cluster_it_says_how_to_start_one(questions: Path, tmp_path: Path) -> None:
    words = ["eval", str(questions), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(root, words)
    assert result.exit_code == 3
    assert "no cluster found" in result.stderr
