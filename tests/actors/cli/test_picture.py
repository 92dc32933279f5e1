"""A run as the terminal shows it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import to_json
from rich.console import Console

from actors.cli.picture import draw
from orchestration.errors import BackendFailed
from orchestration.messages import Step, Usage
from orchestration.run_events import RunEvent, parse_events

Told = tuple[str, dict[str, Any]]


def events(*told: Told) -> list[RunEvent]:
    """A second apart, from second 100 on, as they come over the bus."""
    lines = [
        to_json({"run": "a.1", "seq": seq, "at": 100.0 + seq, "type": kind} | data)
        for seq, (kind, data) in enumerate(told)
    ]
    return parse_events(b"\n".join(lines))


def drawn(told: Sequence[RunEvent], now: float = 200.0, *, ansi: bool = False) -> str:
    console = Console(file=io.StringIO(), record=True, width=140, force_terminal=True)
    console.print(draw(told, now))
    return console.export_text(styles=ansi)


def lines(*told: Told, now: float = 200.0) -> list[str]:
    return [line.strip("│├└─ ") for line in drawn(events(*told), now).splitlines()]


def begun(step: str, agent: str = "code", **more: Any) -> Told:
    return "step_started", {"step": step, "agent": agent} | more


def ended(step: str, agent: str = "code", *, recorded: bool = False, **more: Any) -> Told:
    usage = Usage(completion_tokens=12)
    done = Step(name=step, agent=agent, node="n1", model="m", seconds=1.25, usage=usage)
    said = done.model_copy(update=more).model_dump(mode="json")
    return "step_ended", {"step": said, "recorded": recorded}


def started(pattern: str = "debate", attempt: int = 1) -> Told:
    return "started", {"pattern": pattern, "attempt": attempt}


def test_steps_show_who_does_them_where_and_how_long_it_takes() -> None:
    error = BackendFailed("out of memory").body()
    assert lines(
        started("maestro"),
        begun("plan", "coordinator"),
        ended("plan", "coordinator"),
        begun("research", "research", model="big"),
        begun("code"),
        ended("code", error=error, node="", model=""),
        now=106.5,
    ) == [
        "maestro · run a.1 · 6.5 s",
        "✓ plan · coordinator · m @ n1 · 1.2 s · 12 tokens",
        "◌ research · research · big · 3.5 s",
        "✗ code · code · 1.2 s · 12 tokens · out of memory",
    ]


def test_under_an_answer_that_is_written_a_step_at_work_shows_no_time() -> None:
    console = Console(file=io.StringIO(), record=True, width=140)
    run = [("started", {"pattern": "maestro"}), begun("synthesis", "coordinator", model="m"), ended("plan")]
    console.print(draw(events(*run), 200.0, answering=True))
    shown = [line.strip("│├└─ ") for line in console.export_text().splitlines()]
    assert shown[1] == "→ synthesis · coordinator · m · answer below"
    assert shown[2].startswith("✓ plan")


def test_a_debate_shows_its_rounds_with_positions_and_changes_of_mind() -> None:
    position = {"round": 1, "debater": 1, "role": "code", "answer": "7", "changed": False}
    changed = position | {"round": 2, "answer": "8", "changed": True}
    text = drawn(
        events(
            started(),
            ("round", {"number": 1, "debaters": ["a", "b"]}),
            begun("round 1 / debater 1"),
            ended("round 1 / debater 1"),
            ("position", position),
            ("debate_round", {"round": 1, "agreement": 0.5, "groups": [[1], [2]], "over": ""}),
            ("round", {"number": 2, "debaters": ["a", "b"]}),
            ("position", changed),
            ("debate_round", {"round": 2, "agreement": 1.0, "groups": [[1, 2]], "over": "agreement"}),
            begun("synthesis", "coordinator"),
        ),
        now=109.5,
    )
    assert text.splitlines() == [
        "debate · run a.1 · 9.5 s",
        "├── round 1 · 2 debaters",
        "│   ├── ✓ round 1 / debater 1 · code · m @ n1 · 1.2 s · 12 tokens",
        "│   ├── debater 1 (code) holds: 7",
        "│   └── 1 | 2 · agreement 0.50",
        "├── round 2 · 2 debaters",
        "│   ├── debater 1 (code) changed its mind: 8",
        "│   └── 1, 2 · agreement 1.00 · over: agreement",
        "└── ◌ synthesis · coordinator · 0.5 s",
    ]


def test_a_vote_shows_its_latest_count_in_one_line() -> None:
    vote = {"voters": 3, "votes": 1, "groups": [[2]], "agreement": 1.0, "lead_probability": 0.6}
    second = vote | {"votes": 2, "groups": [[2, 3]], "lead_probability": 0.97}
    shown = lines(started("ensemble"), ("vote", vote), begun("voice 1"), ("vote", second))
    assert shown[1] == "vote: 2 of 3 counted · 2, 3 · agreement 1.00 · lead probability 0.97"
    assert len(shown) == 3


def test_a_graph_shows_what_needs_what_and_what_is_running() -> None:
    tasks = [
        {"id": 1, "specialist": "research", "task": "Find it", "inputs": []},
        {"id": 2, "specialist": "code", "task": "Write it", "inputs": [1]},
        {"id": 3, "specialist": "creative", "task": "Praise it", "inputs": [1, 2]},
    ]
    assert lines(
        started("decompose"),
        ("plan", {"step": "plan", "tasks": tasks}),
        ("task", {"task": 1, "agent": "research", "state": "done", "seconds": 2.0}),
        ("task", {"task": 2, "agent": "code", "state": "working"}),
        begun("task 2"),
    )[1:] == [
        "tasks",
        "1 research: Find it [done 2.0 s]",
        "2 code: Write it ← 1 [working]",
        "◌ task 2 · code · 96.0 s",
        "3 creative: Praise it ← 1, 2 [waiting]",
    ]


def test_maestro_shows_its_plan_with_states_and_what_the_critic_wants_fixed() -> None:
    fixes = [{"who": "code", "what": "Count again"}]
    steps = [
        {"specialist": "code", "task": "Count", "stage": 1},
        {"specialist": "reasoning", "task": "Weigh", "stage": 2},
    ]
    assert lines(
        started("maestro"),
        ("plan", {"reason": "hard", "steps": steps}),
        ("task", {"task": 1, "state": "done", "seconds": 1.25}),
        ("verdict", {"revision": 0, "score": 4.0, "passes": False, "must_fix": fixes}),
        ("verdict", {"revision": 1, "score": 8.5, "passes": True, "must_fix": []}),
    )[1:] == [
        "plan: hard",
        "1. code: Count [done 1.2 s]",
        "2. reasoning: Weigh [waiting]",
        "verdict 0: does not pass, 4.0 of 10",
        "code must fix: Count again",
        "verdict 1: passes, 8.5 of 10",
    ]


def test_a_run_taken_up_is_told_over_from_its_beginning() -> None:
    told = (started(attempt=2), begun("plan"), ended("plan", recorded=True))
    shown = lines(started(), begun("plan"), begun("lost"), *told)
    assert shown[0].startswith("debate · run a.1, attempt 2 · ")
    assert shown[1:] == ["✓ plan · code · m @ n1 · 1.2 s · 12 tokens · done before"]


def test_the_end_shows_seconds_tokens_and_what_went_wrong() -> None:
    usage = Usage(prompt_tokens=30, completion_tokens=12).model_dump()
    error = BackendFailed("all voices failed").body().model_dump()
    end = ("ended", {"finish_reason": "error", "usage": usage, "error": error})
    assert lines(started(), end) == [
        "debate · run a.1 · 1.0 s · 30 tokens read, 12 written",
        "all voices failed",
    ]


def test_what_models_write_cannot_steer_the_terminal() -> None:
    said = {"debater": 1, "round": 1, "answer": "\x1b[2J\x1b]0;title\x07[red]gone\nnext"}
    text = drawn(events(started(), ("position", said)), ansi=True)
    assert "\x1b[2J" not in text
    assert "\x1b]" not in text
    assert "\x07" not in text
    assert "[red]gone next" in text


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KINDS = (
    "round",
    "position",
    "debate_round",
    "vote",
    "plan",
    "task",
    "verdict",
    "choice",
    "grounding",
    "mine",
)
FIELDS = st.sampled_from(("number", "groups", "tasks", "steps", "must_fix", "round", "debaters", "score"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(FIELDS, JSON)), max_size=5))
def test_whatever_a_pattern_tells_can_be_drawn(told: list[Told]) -> None:
    kinds = [kind for kind, _ in told if kind == "mine"]
    text = drawn(events(started(), *told, begun("last")))
    assert "◌ last" in text
    assert text.count("mine: ") == len(kinds)


@pytest.mark.parametrize("kind", ["text_delta", "warning"])
def test_the_answer_and_its_notes_are_shown_elsewhere(kind: str) -> None:
    assert len(lines(started(), (kind, {"text": "words"}))) == 1
