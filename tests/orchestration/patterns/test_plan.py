"""Plans of stages as models write them, and as they are repaired."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.patterns.graph import STAGES, InvalidPlan, PlanLimits, TaskGraph
from orchestration.patterns.graph.plan_forms import MAX_STAGES
from tests.orchestration.patterns.scripted import AGENTS, SPECIALISTS, plan_json

LIMITS = PlanLimits(specialists=SPECIALISTS, max_tasks=3)

steps = st.lists(
    st.tuples(
        st.sampled_from(SPECIALISTS), st.text(min_size=1).filter(str.strip), st.integers(1, MAX_STAGES)
    ),
    min_size=1,
    max_size=3,
)


@given(steps)
def test_every_plan_that_follows_the_schema_can_be_carried_out(
    chosen: list[tuple[str, str, int]],
) -> None:
    plan = STAGES.parse(plan_json(*chosen), LIMITS)
    flat = [step for group in plan.stages() for step in group]
    assert flat == list(plan.tasks)
    wanted = {(name, task.strip(), stage) for name, task, stage in chosen}
    assert {(step.specialist, step.task, step.stage) for step in flat} <= wanted
    assert {(step.specialist, step.task) for step in flat} == {(name, task) for name, task, _ in wanted}
    numbers = [group[0].stage for group in plan.stages()]
    assert numbers == sorted(set(numbers))


@given(steps, st.data())
def test_a_plan_cut_off_anywhere_keeps_its_whole_steps_or_is_refused(
    chosen: list[tuple[str, str, int]], data: st.DataObject
) -> None:
    text = plan_json(*chosen)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    try:
        plan = STAGES.parse(cut, LIMITS)
    except InvalidPlan:
        return
    known = {(name, task.strip(), stage) for name, task, stage in chosen}
    assert {(step.specialist, step.task, step.stage) for step in plan.tasks} <= known
    assert plan.repaired


anything = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@pytest.mark.simulation
@given(st.text() | anything.map(lambda value: json.dumps({"reason": value, "steps": value})))
def test_any_text_is_a_plan_or_refused(text: str) -> None:
    try:
        plan = STAGES.parse(text, LIMITS)
    except InvalidPlan:
        return
    assert plan.tasks


def test_deeply_nested_nonsense_is_refused_and_not_a_crash() -> None:
    with pytest.raises(InvalidPlan):
        STAGES.parse('{"steps": ' + "[" * 100_000, LIMITS)
    with pytest.raises(InvalidPlan):
        STAGES.parse('{"steps": [{"a": ' + "[" * 100_000, LIMITS)


def test_unknown_specialists_repeated_tasks_and_too_many_steps_go_and_it_says_so() -> None:
    text = plan_json(
        ("wizard", "cast", 1),
        ("code", "write", 2),
        ("code", "write", 3),
        ("code", "test", 1),
        ("Research ", "read", 9),
        ("creative", "paint", 1),
    )
    plan = STAGES.parse(text, LIMITS)
    assert [(step.specialist, step.task, step.stage) for step in plan.tasks] == [
        ("code", "test", 1),
        ("code", "write", 2),
        ("research", "read", 3),
    ]
    for said in ("wizard", "code got the same task twice", "more than 3 steps"):
        assert said in plan.repaired


def test_a_plan_without_a_usable_step_says_why() -> None:
    with pytest.raises(InvalidPlan, match="unknown specialist 'wizard'"):
        STAGES.parse(plan_json(("wizard", "cast", 1)), LIMITS)
    with pytest.raises(InvalidPlan, match="not JSON"):
        STAGES.parse("I would ask the researcher.", LIMITS)


def test_a_plan_reads_as_a_sentence() -> None:
    plan = STAGES.parse(
        plan_json(("code", "write", 1), ("research", "read", 1), ("reasoning", "weigh", 2)), LIMITS
    )
    assert str(plan) == "code (write) and research (read); then reasoning (weigh). Why: because"
    assert str(TaskGraph(tasks=plan.tasks[:1])) == "code (write)"


def test_everything_in_the_schema_is_bounded() -> None:
    schema = STAGES.schema(LIMITS)
    listed = schema["properties"]["steps"]
    step = listed["items"]["properties"]
    assert listed["maxItems"] == 3
    assert step["specialist"]["enum"] == sorted(SPECIALISTS)
    assert step["task"]["maxLength"] == LIMITS.task_chars
    assert schema["properties"]["reason"]["maxLength"] > 0


def test_the_example_in_the_request_is_itself_a_valid_plan() -> None:
    offered = {name: AGENTS[name] for name in SPECIALISTS}
    for known in (offered, {"code": "programs"}):
        for most in (1, 3):
            limits = PlanLimits(specialists=known, max_tasks=most)
            messages = STAGES.request("Question: why?", known, limits)
            assert messages[-1].content == "Question: why?"
            plan = STAGES.parse(messages[1].content, limits)
            assert not plan.repaired
