"""The decompose pattern with scripted agents: its order, its report, its limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.errors import BackendFailed, InvalidRequest
from orchestration.messages import ChatMessage, Finish, GuidedDecoding, Sampling, TextDelta, ToolResult
from orchestration.patterns import GenerationRequest, StepLimits, StepResult
from orchestration.patterns.base import StepAccepted
from orchestration.patterns.clipping import estimate_tokens
from orchestration.patterns.decompose import decompose
from orchestration.patterns.specialist_step import NUMBERS
from tests.orchestration.patterns.graphs import DIAMOND, edges_json, events, graph_json, names
from tests.orchestration.patterns.scripted import (
    AGENTS,
    Reply,
    Scripted,
    counting_clock,
    make_context,
    make_run,
    perform,
)
from tests.orchestration.patterns.test_step_cache import Book, performed


async def test_subtasks_are_done_in_the_order_of_their_inputs_and_the_answer_comes_from_the_ends() -> None:
    ask = Scripted(
        {
            "plan": DIAMOND,
            "task 1": "fact A",
            "task 2": "code B",
            "task 3": "picture C",
            "task 4": "thus D",
            "synthesis": "It scatters.",
        }
    )
    text, answer, context = await perform(decompose, make_run(), ask)
    assert text == answer.text == "It scatters."
    assert names(context) == ["plan", "task 1", "task 2", "task 3", "task 4", "synthesis"]
    assert "fact A" in ask.question("task 2").messages[-1].content
    assert "fact A" in ask.question("task 3").messages[-1].content
    weighing = ask.question("task 4").messages[-1].content
    assert "Your task: weigh" in weighing
    assert "code B" in weighing
    assert "picture C" in weighing
    assert "fact A" not in weighing
    final = ask.question("synthesis").messages[-1].content
    assert "thus D" in final
    assert "code B" not in final
    assert context.notes == []


async def test_what_needs_no_other_is_done_at_the_same_time_up_to_max_parallel() -> None:
    wide = edges_json({each: [] for each in range(1, 5)})
    steps = [f"task {each}" for each in range(1, 5)]
    ask = Scripted({"plan": wide}, meet=dict.fromkeys(steps, asyncio.Barrier(4)))
    await perform(decompose, make_run(), ask)
    assert ask.most_open == 4
    ask = Scripted({"plan": wide}, meet=dict.fromkeys(steps, asyncio.Barrier(2)))
    await perform(decompose, make_run(settings={"max_parallel": 2}), ask)
    assert ask.most_open == 2


async def test_the_report_has_every_task_with_its_times_and_the_critical_path() -> None:
    ask = Scripted({"plan": DIAMOND})
    _, _, context = await perform(decompose, make_run(), ask)
    report = context.report["decompose"]
    assert [task["id"] for task in report["tasks"]] == [1, 2, 3, 4]
    for task in report["tasks"]:
        assert task["state"] == "done"
        assert task["node"] == "n1"
        assert task["step"] == f"task {task['id']}"
        assert task["seconds"] == task["ended"] - task["started"] > 0
        assert task["expected"] > 0
    assert [task["agent"] for task in report["tasks"]] == ["research", "code", "creative", "reasoning"]
    assert report["tasks"][3]["inputs"] == [2, 3]
    assert report["tasks"][3]["started"] >= max(task["ended"] for task in report["tasks"][1:3])
    assert report["critical_path"][0] == 1
    assert report["critical_path"][-1] == 4
    assert report["wall_s"] >= report["critical_path_s"] > 0
    assert report["ratio"] == pytest.approx(report["wall_s"] / report["critical_path_s"], abs=1e-3)
    assert not report["partial"]
    assert not report["replanned"]


async def test_programs_hear_the_plan_and_how_every_task_goes() -> None:
    ask = Scripted({"plan": DIAMOND})
    await perform(decompose, make_run(), ask)
    (plan,) = events(ask, "plan")
    assert plan["tasks"][1] == {"id": 2, "specialist": "code", "task": "write", "inputs": [1]}
    told = [(each["task"], each["state"]) for each in events(ask, "task")]
    assert told[:2] == [(1, "working"), (1, "done")]
    assert told[-2:] == [(4, "working"), (4, "done")]
    assert len(told) == 8


async def test_programs_hear_on_which_steps_each_step_builds() -> None:
    ask = Scripted({"plan": DIAMOND, "task 3": BackendFailed("broken"), "task 3 again": "picture C"})
    await perform(decompose, make_run(), ask)
    assert {data["step"]: set(data["after"]) for data in events(ask, "step_started")} == {
        "plan": set(),
        "task 1": {"plan"},
        "task 2": {"task 1"},
        "task 3": {"task 1"},
        "task 3 again": {"task 3"},
        "task 4": {"task 2", "task 3 again"},
        "synthesis": {"task 4"},
    }


FOUND = ToolResult(
    data=[
        {
            "passage": "The sky scatters blue light.",
            "document": "sky.md",
            "title": "Sky",
            "heading": "",
            "similarity": 0.9,
        }
    ]
)


@settings(max_examples=32, deadline=None)
@given(st.sets(st.sampled_from(["plan", "task 2", "task 3", "task 4", "task 5"])))
async def test_a_run_that_is_taken_up_asks_for_no_step_again_in_whatever_order_they_begin(
    lost: set[str],
) -> None:
    """Sources of a step keep their numbers too, though other steps begin before it."""
    plan = edges_json({1: [], 2: [], 3: [2], 4: [3], 5: [1, 4]})
    script = {"plan": plan, **{f"task {each}": f"fact {each}" for each in range(1, 6)}}
    run, book = make_run(settings={"max_parallel": 1, "order": "ready"}), Book()
    first = Scripted(script, tool_results={"research": {"knowledge": FOUND}})
    before, _ = await performed(decompose, run, first, book)
    book.kept = {name: kept for name, kept in book.kept.items() if name not in lost}
    ask = Scripted(script, tool_results={"research": {"knowledge": FOUND}})
    again = run.model_copy(update={"settings": {"max_parallel": 1}})
    after, context = await performed(decompose, again, ask, book)
    assert before == after
    assert {question.name for question in ask.asked} == {*lost, "synthesis"}
    assert ask.used == []
    numbers = [source["n"] for source in context.report["sources"]]
    assert len(set(numbers)) == 5
    assert max(numbers) == 4 * NUMBERS + 1


async def test_what_is_measured_puts_the_next_tasks_in_order() -> None:
    ask = Scripted(
        {"plan": graph_json((1, "code", "a", []), (2, "research", "b", []), (3, "creative", "c", []))}
    )
    run = make_run(settings={"max_parallel": 1})
    context = make_context(run, ask, agents=AGENTS, clock=counting_clock())
    for agent, seconds in (("code", 1.0), ("research", 9.0), ("creative", 4.0)):
        context.facts.durations.learn(agent, "m", seconds)
    async with aclosing(decompose(run, context)) as items:
        async for _ in items:
            pass
    assert names(context)[1:-1] == ["task 2", "task 3", "task 1"]
    assert [task["expected"] for task in context.report["decompose"]["tasks"]] == [1.0, 9.0, 4.0]
    assert context.facts.durations.expected("research") < 9.0
    ask = Scripted(ask.script)
    _, _, context = await perform(decompose, make_run(settings={"max_parallel": 1, "order": "ready"}), ask)
    assert names(context)[1:-1] == ["task 1", "task 2", "task 3"]


async def test_the_callers_wishes_reach_the_step_that_writes_the_answer() -> None:
    guide = GuidedDecoding(json_schema={"type": "object"})
    run = make_run(
        messages=(
            ChatMessage(role="system", content="Speak like a pirate."),
            ChatMessage(role="user", content="Ahoy?"),
            ChatMessage(role="assistant", content="Arr."),
            ChatMessage(role="user", content="Where is the treasure?"),
        ),
        model="big",
        guide=guide,
        sampling=Sampling(temperature=1.5, max_tokens=7, seed=42),
    )
    ask = Scripted({"plan": DIAMOND})
    await perform(decompose, run, ask)
    final = ask.question("synthesis")
    assert final.guide == guide
    assert final.sampling == run.sampling
    assert final.messages[0].content == "Speak like a pirate."
    for question in ask.asked:
        assert question.model == "big"
        assert question.sampling.seed == 42
        assert "Where is the treasure?" in question.messages[-1].content
    assert ask.question("task 1").sampling.temperature is None
    assert "Arr." in ask.question("task 1").messages[-1].content


async def test_every_step_fits_a_small_context_however_long_the_texts_are() -> None:
    limits = StepLimits()
    long = "word " * 3_000
    fan = edges_json({1: [], 2: [], 3: [], 4: [1, 2, 3], 5: [], 6: [5]})
    said: dict[str, Reply] = {f"task {each}": long for each in range(1, 5)}
    failing: dict[str, Reply] = {f"task 5{again}": BackendFailed(long) for again in ("", " again")}
    wild = edges_json({each: [each + 50] for each in range(60)}, who="wizard")
    ask = Scripted({"plan": wild, "plan again": fan, **said, **failing})
    _, _, context = await perform(decompose, make_run(long), ask, limits=limits)
    assert "replan" in names(context)
    for question in ask.asked:
        assert question.sampling.max_tokens is not None
        inside = sum(estimate_tokens(message.content) for message in question.messages)
        assert inside + question.sampling.max_tokens < 2048
    joined = ask.question("task 4").messages[-1].content
    assert joined.count("research (do ") == 3
    assert joined.count("characters left out") == 4  # the question too


async def test_leaving_in_the_middle_stops_the_steps() -> None:
    ask = Scripted({"plan": DIAMOND, "synthesis": "one two three"})
    run = make_run()
    context = make_context(run, ask, agents=AGENTS, clock=counting_clock())
    async with aclosing(decompose(run, context)) as items:
        async for item in items:
            assert not isinstance(item, StepResult)
            break
    assert ask.open_now == 0


async def test_a_run_that_is_cancelled_stops_the_subtasks_at_work() -> None:
    class Hanging(Scripted):
        async def generate(
            self, question: GenerationRequest
        ) -> AsyncGenerator[StepAccepted | TextDelta | Finish, None]:
            async with aclosing(super().generate(question)) as items:
                async for item in items:
                    if question.name == "task 1":
                        at_work.set()
                        await asyncio.get_running_loop().create_future()
                    yield item

    at_work = asyncio.Event()
    ask = Hanging({"plan": DIAMOND})
    reading = asyncio.ensure_future(perform(decompose, make_run(), ask))
    async with asyncio.timeout(5):
        await at_work.wait()
    assert ask.open_now == 1
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert ask.open_now == 0


@pytest.mark.parametrize(
    "settings", [{"max_tasks": 0}, {"max_tasks": 99}, {"max_depth": 0}, {"max_parallel": 0}, {"order": "lot"}]
)
async def test_settings_beyond_their_bounds_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=f"orchestra.settings.{next(iter(settings))}"):
        await perform(decompose, make_run(settings=settings), Scripted({}))
