"""`orchestra eval --replay` on small made-up records, in a real cluster of its own."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from actors.cli.main import root
from tests.fixtures.eventually import eventually
from tests.fixtures.process import NO_EMBEDDER, orchestra

WRONG = {"ann": (), "bob": (3, 4), "cyd": (1, 3)}
"""The questions that each model answers wrong."""
LONG = "We add the two numbers step by step, and check it. " * 8


def row(number: int) -> dict[str, Any]:
    right = 2 * number + 1
    said = {
        model: f"{LONG}The answer is {right + 1 if number in wrong else right}."
        for model, wrong in WRONG.items()
    }
    return {
        "id": f"q{number}",
        "messages": [{"role": "user", "content": f"What is {number} + {number + 1}? Show how you add them."}],
        "gold": str(right),
        "answers": said,
    }


def written(folder: Path, count: int) -> Path:
    place = folder / "logs"
    place.mkdir()
    lines = "".join(json.dumps(row(number)) + "\n" for number in range(count))
    (place / "sums.jsonl").write_text(lines)
    return place


def evaluate(place: Path, *words: str) -> Result:
    data = str(place.parent / "data")
    said = ["eval", "--replay", str(place), "--data", data, "--out", str(place.parent / "out"), *words]
    return CliRunner().invoke(
        root, said, catch_exceptions=False, env=NO_EMBEDDER | {"ORCHESTRA_AGENTS__AUTO__FLUSH_S": "0.2"}
    )


def kept(place: Path) -> list[dict[str, Any]]:
    results = place.parent / "out" / "results.jsonl"
    return [json.loads(line) for line in results.read_bytes().splitlines()] if results.exists() else []


@pytest.mark.simulation
def test_a_panel_is_judged_beside_its_members_with_words_on_the_first_questions(tmp_path: Path) -> None:
    place = written(tmp_path, 6)
    words = ("--patterns", "ensemble,single", "--models", "ann,bob,cyd", "--feedback", "3", "--json")
    done = evaluate(
        place, *words, "--speed", "0", "--set", "ensemble.early=false", "--set", "ensemble.kind=number"
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    ensemble, single = report["patterns"]
    whole, first, second = ensemble["parts"]
    assert (whole["questions"], first["questions"], second["questions"]) == (6, 3, 3)
    assert {model: round(each["mean"], 2) for model, each in whole["members"].items()} == {
        "ann": 1.0,
        "bob": 0.67,
        "cyd": 0.67,
    }
    assert whole["best"] == "ann"
    assert whole["majority"]["mean"] == pytest.approx(5 / 6)  # both others are wrong alike on the fourth
    assert whole["oracle"]["mean"] == 1.0
    assert ensemble["feedback_counted"] == single["feedback_counted"] == 3
    results = kept(place)[1:]
    assert len(results) == 12
    assert all(set(each["written"]) == set(WRONG) for each in results if each["pattern"] == "ensemble")
    assert whole["tokens"]["written"] >= whole["tokens"]["full"] > 0
    assert whole["readings"]["counted"] == 18
    assert not list((tmp_path / "out").glob("cluster-*"))
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"report.json", "results.jsonl"}

    again = evaluate(place, *words, "--speed", "0", "--resume")
    assert again.exit_code == 2
    assert "its settings is" in again.stderr


@pytest.mark.simulation
def test_a_scorer_of_ones_own_is_the_judge(tmp_path: Path) -> None:
    place = written(tmp_path, 3)
    scorer = tmp_path / "scorer.py"
    scorer.write_text(
        "def read(name, text):\n"
        "    assert name == 'sums'\n"
        "    return text.split()[-1].rstrip('.') if '7' not in text else None\n"
    )
    done = evaluate(place, "sums", "--scorer", str(scorer), "--limit", "2", "--no-learn", "--speed", "0")
    assert done.exit_code == 0, done.output
    assert "judged by scorer" in done.stdout
    assert "own reading of the recorded answers: 100.0% of 6 that the scorer reads, 0.0% read" in done.stdout
    assert "tokens written" in done.stdout
    assert "2/2" in done.stderr


@pytest.mark.simulation
def test_every_set_of_a_folder_is_replayed_into_a_folder_of_its_own(tmp_path: Path) -> None:
    place = written(tmp_path, 2)
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is 7 + 8? Use the tool."}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "15", "tool_call_id": "c1"},
    ]
    (place / "more.jsonl").write_text(json.dumps(row(7) | {"messages": turns}))
    done = evaluate(place, "--no-learn", "--speed", "0", "--json", "--patterns", "single")
    assert done.exit_code == 0, done.output
    assert [(each["spec"]["replay"], each["spec"]["questions"]) for each in json.loads(done.stdout)] == [
        ("more", 1),
        ("sums", 2),
    ]
    assert json.loads(done.stdout)[0]["patterns"][0]["parts"][0]["pattern"]["mean"] == 1
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["more", "sums"]
    assert "--models are of one set" in evaluate(place, "--models", "ann").stderr


def test_ctrl_c_keeps_what_was_answered_and_resume_ends_it(tmp_path: Path) -> None:
    place = written(tmp_path, 8)
    words = ("--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--concurrency", "1")
    command = ("eval", "--replay", str(place), *words, "--speed", "200", "--feedback", "2")
    with orchestra(*command, ORCHESTRA_AGENTS__AUTO__FLUSH_S="0.2") as process:
        asyncio.run(eventually(lambda: len(kept(place)) >= 3, within_s=60))
        process.send(signal.SIGINT)
        assert process.wait(within_s=60) == 130, process.said
        process.wait_for("continue with --resume")
    before = kept(place)
    assert len(before) < 9
    assert (tmp_path / "out" / "cluster-ensemble").is_dir()  # with what it has learnt
    with orchestra(*command, "--resume", ORCHESTRA_AGENTS__AUTO__FLUSH_S="0.2") as process:
        assert process.wait(within_s=120) == 0, process.said
    after = kept(place)
    assert after[: len(before)] == before
    assert sorted({each["question"] for each in after[1:]}) == sorted(f"q{n}" for n in range(8))
    assert sum(each.get("feedback_counted") or False for each in after[1:]) == 2
    assert not (tmp_path / "out" / "cluster-ensemble").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("poems",), "has no poems.jsonl or poems.jsonl.gz; found: sums"),
        (("--models", "ann,dan"), "no model 'dan'; known models: ann, bob, cyd"),
        (("--up",), "--up does not go with --replay"),
        (("--nats", "nats://127.0.0.1:1"), "--nats does not go with --replay"),
        (("--feedback", "2", "--no-learn"), "--feedback has no effect with --no-learn"),
        (("--form", "choice"), "record 'q0': gold: '1' is not one of the options"),
        (("--scorer", "nowhere.py"), "nowhere.py is not a Python file"),
        (("--patterns", "ensemble", "--set", "auto.x=1"), "'auto' is not in --patterns ensemble"),
        (("--patterns", "chorus"), "no model 'orchestra/chorus'"),
        (("--set", "ensemble.voices=3"), "settings of ensemble: "),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_one_line(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = evaluate(written(tmp_path, 2), *words)
    assert done.exit_code == 2
    assert not list((tmp_path).glob("out/cluster-*"))
    assert said in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("orchestra: ")


def test_a_place_without_sets_and_options_of_a_replay_without_one_are_refused(tmp_path: Path) -> None:
    for words, said in (
        (
            ("--replay", str(tmp_path)),
            "has no set of recorded answers; found: no SET.jsonl and no SET.jsonl.gz",
        ),
        (("--replay", str(tmp_path / "no")), "is neither a folder nor a file of recorded answers"),
        (("questions.jsonl", "--feedback", "2"), "--feedback needs --replay"),
        ((), "name a file of questions or a task, or recorded answers with --replay"),
    ):
        done = CliRunner().invoke(root, ["eval", *words], catch_exceptions=False)
        assert done.exit_code == 2
        assert said in done.stderr
