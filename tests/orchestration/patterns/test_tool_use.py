"""Tools as patterns use them: each use is a step."""

from __future__ import annotations

import pytest

from orchestration.errors import BudgetExceeded, InternalError, NodeLost
from orchestration.messages import Budget, ToolResult
from orchestration.patterns import RunContext
from tests.orchestration.patterns.scripted import AGENTS, Scripted, counting_clock, make_context, make_run


def stage_of(ask: Scripted, **fields: object) -> RunContext:
    return make_context(make_run(**fields), ask, agents=AGENTS, clock=counting_clock())  # type: ignore[arg-type]


async def test_a_use_is_a_step_that_names_its_tool_and_costs_no_tokens() -> None:
    ask = Scripted({}, tool_results={"reasoning": {"calculator": ToolResult(text="4", data=4)}})
    context = stage_of(ask)
    assert [tool.name for tool in await context.local_tools("reasoning")] == ["calculator"]
    result = await context.use("reasoning", "calculator", {"sum": "2 + 2"}, name="check")
    assert result.data == 4
    (step,) = context.steps
    assert (step.name, step.agent, step.tool, step.text) == ("check", "reasoning", "calculator", "4")
    assert step.error is None
    assert context.usage.completion_tokens == context.budget.calls == 0
    assert [kind for kind, _ in ask.happened] == ["step_started", "step_ended"]
    assert "check: reasoning used calculator for 1.0 s" in ask.said


async def test_what_goes_wrong_in_a_tool_is_its_result_and_no_error_of_the_step() -> None:
    ask = Scripted({}, tool_results={"code": {"python": ToolResult(error="NameError: x")}})
    context = stage_of(ask)
    result = await context.use("code", "python", {"source": "x"}, name="try")
    assert result.error == "NameError: x"
    assert context.steps[0].error is None
    assert context.steps[0].text == "NameError: x"


async def test_an_agent_that_is_silent_fails_the_step_which_is_recorded() -> None:
    ask = Scripted({}, tool_results={"code": {"python": NodeLost("nobody answered")}})
    context = stage_of(ask)
    with pytest.raises(NodeLost):
        await context.use("code", "python", {}, name="try")
    assert context.steps[0].error is not None
    assert context.steps[0].tool == "python"


async def test_no_two_steps_have_a_name_whether_they_use_a_tool_or_not() -> None:
    ask = Scripted({}, tool_results={"code": {"python": ToolResult()}})
    context = stage_of(ask)
    await context.ask("code", (), name="try")
    with pytest.raises(InternalError, match="'try'"):
        await context.use("code", "python", {}, name="try")


async def test_a_use_has_the_seconds_that_the_budget_leaves_and_none_is_begun_when_they_are_over() -> None:
    ask = Scripted({}, tool_results={"code": {"python": ToolResult()}})
    context = stage_of(ask, budget=Budget(seconds=9))
    await context.use("code", "python", {}, name="first")
    seconds = ask.used[0].seconds
    assert seconds is not None
    assert 0 < seconds < 9
    while context.budget.seconds < 9:
        pass  # this clock moves by being read
    with pytest.raises(BudgetExceeded, match="9 seconds"):
        await context.use("code", "python", {}, name="second")
    assert len(ask.used) == 1
