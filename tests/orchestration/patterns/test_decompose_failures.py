"""The decompose pattern with scripted agents: plans and subtasks that fail, and budgets that end."""

from __future__ import annotations

import pytest

from orchestration.errors import BackendFailed, BudgetExceeded, InvalidRequest, NoNode, OrchestraError
from orchestration.messages import Budget
from orchestration.patterns.decompose import decompose
from orchestration.patterns.graph import INPUTS, PlanLimits
from tests.orchestration.patterns.graphs import DIAMOND, edges_json, events, graph_json, names
from tests.orchestration.patterns.scripted import AGENTS, SPECIALISTS, Reply, Scripted, make_run, perform


@pytest.mark.parametrize(
    ("bad", "wrong"),
    [
        (edges_json({1: [2], 2: [1]}), "wait for each other"),
        (graph_json((1, "wizard", "cast", [])), "unknown specialist 'wizard' of task 1"),
        (edges_json({1: [7]}), "task 1 needs task 7, which does not exist"),
        (edges_json({1: [], 2: [1], 3: [2], 4: [3], 5: [4]}), "of 5 in a row"),
        ('{"tasks": []}', "it has no task"),
        ("no", "not JSON"),
    ],
)
async def test_a_plan_that_cannot_be_carried_out_is_corrected_once_by_its_author(
    bad: str, wrong: str
) -> None:
    ask = Scripted({"plan": bad, "plan again": edges_json({1: [], 2: [1]})})
    _, _, context = await perform(decompose, make_run(), ask)
    assert names(context) == ["plan", "plan again", "task 1", "task 2", "synthesis"]
    again = ask.question("plan again")
    assert again.messages[:-2] == ask.question("plan").messages
    assert again.messages[-2].role == "assistant"
    assert wrong in again.messages[-1].content
    assert again.sampling.temperature == 0
    assert context.notes == []
    ask = Scripted({"plan": bad, "plan again": bad, "answer": "blue"})
    text, _, context = await perform(decompose, make_run(), ask)
    assert text == "blue"
    assert names(context) == ["plan", "plan again", "answer"]
    assert context.notes == ["there was no usable plan: the coordinator answered alone"]


async def test_a_model_that_cannot_be_guided_makes_it_a_single_at_once() -> None:
    ask = Scripted({"plan": BackendFailed("no guides here"), "answer": "blue"})
    _, _, context = await perform(decompose, make_run(), ask)
    assert names(context) == ["plan", "answer"]
    assert len(context.notes) == 1


async def test_a_team_without_specialists_is_not_asked_for_a_plan() -> None:
    agents = {name: AGENTS[name] for name in ("coordinator", "critic")}
    _, _, context = await perform(decompose, make_run(), Scripted({}), agents=agents)
    assert names(context) == ["answer"]


async def test_an_error_that_any_step_would_meet_ends_the_run() -> None:
    ask = Scripted({"plan": NoNode("no live node serves a chat model")})
    with pytest.raises(NoNode):
        await perform(decompose, make_run(), ask)
    assert len(ask.asked) == 1


async def test_a_subtask_that_fails_is_tried_again_and_the_answer_is_whole() -> None:
    ask = Scripted({"plan": DIAMOND, "task 2": BackendFailed("broken"), "task 2 again": "code B"})
    _, _, context = await perform(decompose, make_run(), ask)
    assert sorted(names(context)[2:5]) == ["task 2", "task 2 again", "task 3"]
    assert "code B" in ask.question("task 4").messages[-1].content
    report = context.report["decompose"]
    assert report["tasks"][1]["step"] == "task 2 again"
    assert report["tasks"][1]["state"] == "done"
    assert "error" not in report["tasks"][1]
    assert not report["partial"]
    assert context.notes == []
    assert [each["attempt"] for each in events(ask, "task") if each["task"] == 2] == [1, 2, 2]


async def test_what_would_fail_again_is_not_tried_again() -> None:
    ask = Scripted({"plan": edges_json({1: [], 2: []}), "task 2": InvalidRequest("too much")})
    _, _, context = await perform(decompose, make_run(settings={"replan": False}), ask)
    assert "task 2 again" not in names(context)


async def test_a_subtask_that_is_answered_with_nothing_has_failed() -> None:
    ask = Scripted({"plan": edges_json({1: [], 2: []}), "task 2": "  ", "task 2 again": "words"})
    _, _, context = await perform(decompose, make_run(), ask)
    assert "task 2 again" in names(context)
    assert not context.report["decompose"]["partial"]


LOST: dict[str, Reply] = {"task 2": BackendFailed("broken"), "task 2 again": BackendFailed("broken too")}


async def test_the_rest_is_replanned_once_and_results_stay() -> None:
    new = graph_json((5, "research", "look elsewhere", [1]), (6, "reasoning", "weigh both", [3, 5]))
    ask = Scripted({"plan": DIAMOND, "task 3": "picture C", "replan": new, "task 5": "found E", **LOST})
    _, _, context = await perform(decompose, make_run(), ask)
    assert names(context)[-4:] == ["replan", "task 5", "task 6", "synthesis"]
    assert "task 4" not in names(context)
    asked = ask.question("replan")
    assert asked.guide is not None
    bounds = PlanLimits(specialists=SPECIALISTS, max_tasks=2, max_depth=4, known=(1, 3))
    assert asked.guide.json_schema == INPUTS.schema(bounds, first=5)
    assert "subtask 2 failed: broken too" in asked.messages[-1].content
    assert "results of 1, 3" in asked.messages[-1].content
    last = ask.question("task 6").messages[-1].content
    assert "picture C" in last
    assert "found E" in last
    report = context.report["decompose"]
    assert {task["id"]: task["state"] for task in report["tasks"]} == {
        1: "done",
        2: "failed",
        3: "done",
        4: "replaced",
        5: "done",
        6: "done",
    }
    assert report["replanned"]
    assert not report["partial"]
    assert context.notes == ["task 2 (code: write) failed; the remaining tasks were planned again"]


@pytest.mark.parametrize("anew", ["garbage", NoNode("no"), edges_json({5: [2]}), None])
async def test_without_another_plan_followers_of_a_failed_task_know_it_and_the_answer_is_partial(
    anew: str | OrchestraError | None,
) -> None:
    script: dict[str, Reply] = {"plan": DIAMOND, "task 3": "picture C", **LOST}
    ask = Scripted(script if anew is None else script | {"replan": anew})
    _, _, context = await perform(decompose, make_run(settings={"replan": anew is not None}), ask)
    assert ("replan" in names(context)) == (anew is not None)
    weighing = ask.question("task 4").messages[-1].content
    assert "code (write): no result" in weighing
    assert "picture C" in weighing
    assert "code (write): no result" in ask.question("synthesis").messages[-1].content
    report = context.report["decompose"]
    assert report["partial"]
    assert [task["state"] for task in report["tasks"]] == ["done", "failed", "done", "done"]
    assert report["tasks"][1]["error"] == "backend_failed"
    assert context.notes == ["partial answer, without task 2 (code: write): broken too"]


async def test_a_row_of_failures_ends_with_what_there_is() -> None:
    script: dict[str, Reply] = {"plan": edges_json({1: [], 2: [1], 3: [2], 4: [3]}), "task 1": "fact A"}
    failing: dict[str, Reply] = {
        f"task {each}{again}": BackendFailed("broken") for each in (2, 3, 4) for again in ("", " again")
    }
    ask = Scripted(script | failing)
    _, _, context = await perform(decompose, make_run(settings={"replan": False}), ask)
    assert "fact A" in ask.question("synthesis").messages[-1].content
    assert [task["state"] for task in context.report["decompose"]["tasks"]] == ["done", *["failed"] * 3]


async def test_only_all_subtasks_failing_fails_the_run_with_the_first_error() -> None:
    ask = Scripted(
        {
            "plan": edges_json({1: [], 2: [], 3: [1, 2]}),
            "task 1": InvalidRequest("too long"),
            "task 2": NoNode("none"),
            "task 2 again": NoNode("none"),
        }
    )
    with pytest.raises(InvalidRequest, match="too long"):
        await perform(decompose, make_run(), ask)
    assert [question.name for question in ask.asked] == ["plan", "task 1", "task 2", "task 2 again"]


async def test_a_budget_that_ends_in_the_midst_ends_with_what_there_is_and_says_so() -> None:
    ask = Scripted({"plan": edges_json({1: [], 2: [1], 3: [2]}), "task 1": "fact A"})
    text, _, context = await perform(decompose, make_run(budget=Budget(calls=3)), ask)
    assert text
    assert names(context) == ["plan", "task 1", "synthesis"]
    assert "fact A" in ask.question("synthesis").messages[-1].content
    report = context.report["decompose"]
    assert [task["state"] for task in report["tasks"]] == ["done", "failed", "left out"]
    assert report["partial"]
    assert "partial answer, without task 2" in context.notes[0]
    assert "task 3 (research: do 3): it was not started" in context.notes[0]


async def test_a_budget_for_no_subtask_leaves_the_answer_to_the_coordinator() -> None:
    ask = Scripted({"plan": edges_json({1: [], 2: [1]}), "answer": "blue"})
    text, _, context = await perform(decompose, make_run(budget=Budget(calls=2)), ask)
    assert text == "blue"
    assert names(context) == ["plan", "answer"]
    assert context.notes == ["no subtask could be done within the budget: the coordinator answered alone"]


async def test_where_no_synthesis_can_be_afforded_the_results_are_the_answer() -> None:
    ask = Scripted(
        {
            "plan": edges_json({1: [], 2: []}),
            "task 1": "fact A",
            "task 2": "fact B",
            "synthesis": BudgetExceeded("nothing is left"),
        }
    )
    text, answer, context = await perform(decompose, make_run(), ask)
    assert text == answer.text == "fact A\n\nfact B"
    assert context.notes == ["these are the results of the subtasks themselves: nothing is left"]
