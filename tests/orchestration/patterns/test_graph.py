"""Plans of inputs: their errors, their prompts, and how they are read."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.patterns.graph import INPUTS, InvalidPlan, PlanLimits
from orchestration.patterns.graph.plan_forms import MAX_INPUTS
from orchestration.patterns.graph.validation import depths, find_cycle
from tests.orchestration.patterns.graphs import acyclic, edges_json, graph_json, unhurried, wirings
from tests.orchestration.patterns.scripted import AGENTS, SPECIALISTS

BOUNDS = PlanLimits(specialists=SPECIALISTS, max_tasks=12, max_depth=12)


def is_cyclic(edges: dict[int, list[int]]) -> bool:
    """Computed by powers of the adjacency matrix: a walk of n steps exists only where there is a cycle."""
    ids = list(edges)
    matrix = np.array([[each in edges[row] for each in ids] for row in ids])
    walks = matrix
    for _ in ids:
        walks = walks @ matrix
    return bool(walks.any())


@unhurried
@given(wirings())
def test_every_cycle_is_found_and_named(edges: dict[int, list[int]]) -> None:
    if not is_cyclic(edges):
        assert find_cycle({str(k): [str(each) for each in v] for k, v in edges.items()}) == []
        graph = INPUTS.parse(edges_json(edges), BOUNDS)
        assert len(graph.tasks) == len(edges)
        return
    with pytest.raises(InvalidPlan, match="wait for each other"):
        INPUTS.parse(edges_json(edges), BOUNDS)
    cycle = find_cycle({str(k): [str(each) for each in v] for k, v in edges.items()})
    assert cycle[0] == cycle[-1]
    for needed, task in pairwise(cycle):
        assert int(needed) in edges[int(task)]


@unhurried
@given(acyclic(), st.data())
def test_every_input_that_is_not_there_is_named(edges: dict[int, list[int]], data: st.DataObject) -> None:
    missing = data.draw(st.integers(100, 200))
    task = data.draw(st.sampled_from(list(edges)))
    edges[task] = [*edges[task], missing]
    with pytest.raises(InvalidPlan, match=f"task {task} needs task {missing}, which does not exist"):
        INPUTS.parse(edges_json(edges), BOUNDS)


@unhurried
@given(acyclic(), st.randoms())
def test_tasks_written_in_any_order_under_any_names_are_numbered_behind_what_they_need(
    edges: dict[int, list[int]], lot: random.Random
) -> None:
    written = [
        (f"t{each}", "code", f"do {each}", [f"t{need}" for need in needs]) for each, needs in edges.items()
    ]
    lot.shuffle(written)
    graph = INPUTS.parse(graph_json(*written), BOUNDS)
    assert [task.id for task in graph.tasks] == list(range(1, len(edges) + 1))
    by_id = {task.id: task for task in graph.tasks}
    for task in graph.tasks:
        assert all(needed < task.id for needed in task.inputs)
        wanted = {f"do {each}" for each in edges[int(task.task.split()[1])]}
        assert {by_id[needed].task for needed in task.inputs} == wanted


@unhurried
@given(acyclic())
def test_a_plan_in_order_keeps_its_numbers(edges: dict[int, list[int]]) -> None:
    graph = INPUTS.parse(edges_json(edges), BOUNDS)
    assert {task.id: sorted(task.inputs) for task in graph.tasks} == {
        each: sorted(needs) for each, needs in edges.items()
    }
    assert not graph.repaired


def longest_row(edges: dict[int, list[int]], task: int) -> int:
    return 1 + max((longest_row(edges, needed) for needed in edges[task]), default=0)


@unhurried
@given(acyclic(), st.integers(1, 6))
def test_depth_is_the_longest_row_of_tasks_that_wait_for_each_other(
    edges: dict[int, list[int]], most: int
) -> None:
    rows = {str(each): longest_row(edges, each) for each in edges}
    assert depths({str(k): [str(each) for each in v] for k, v in edges.items()}) == rows
    bounds = PlanLimits(specialists=SPECIALISTS, max_tasks=12, max_depth=most)
    if max(rows.values()) <= most:
        INPUTS.parse(edges_json(edges), bounds)
        return
    with pytest.raises(InvalidPlan, match=f"of {max(rows.values())} in a row .* at most {most} may"):
        INPUTS.parse(edges_json(edges), bounds)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("I would ask the researcher.", "not JSON"),
        ('{"tasks": []}', "it has no task"),
        ('{"steps": [1]}', "it has no task"),
        ('{"tasks": [7]}', "a task cannot be read"),
        (
            '{"tasks": [{"id": 1, "specialist": "code", "task": "", "inputs": []}]}',
            "task: String should have",
        ),
        (
            graph_json((1, "wizard", "cast", [])),
            "unknown specialist 'wizard' of task 1; .* creative, reasoning",
        ),
        (graph_json((1, "code", "a", []), (1, "code", "b", [])), "the id 1 is given to more than one task"),
        (graph_json((1, "code", "a", [1])), "tasks 1 → 1 wait for each other"),
        (edges_json({each: [] for each in range(1, 15)}), "it has 14 tasks; at most 12 are allowed"),
        ('{"tasks": ' + "[" * 100_000, "it has no task"),
        ('{"tasks": [' + "1" * 10_000, "it has no task"),
    ],
)
def test_bad_plans_are_refused_in_words(text: str, wrong: str) -> None:
    with pytest.raises(InvalidPlan, match=wrong):
        INPUTS.parse(text, BOUNDS)


def test_all_errors_of_a_plan_are_reported_at_once() -> None:
    text = graph_json((1, "wizard", "cast", [2]), (2, "code", "write", [1, 9]))
    with pytest.raises(InvalidPlan) as caught:
        INPUTS.parse(text, BOUNDS)
    for said in ("wizard", "needs task 9", "→"):
        assert said in str(caught.value)


@unhurried
@given(acyclic(), st.data())
def test_a_plan_cut_off_anywhere_keeps_its_whole_tasks_or_is_refused(
    edges: dict[int, list[int]], data: st.DataObject
) -> None:
    text = edges_json(edges)
    try:
        graph = INPUTS.parse(text[: data.draw(st.integers(0, len(text) - 1))], BOUNDS)
    except InvalidPlan:
        return
    assert graph.repaired == "it was cut off"
    assert {task.task for task in graph.tasks} <= {f"do {each}" for each in edges}


anything = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@settings(max_examples=50, deadline=None)
@given(st.text() | anything.map(lambda value: json.dumps({"tasks": value})))
def test_any_text_is_a_plan_or_refused(text: str) -> None:
    try:
        graph = INPUTS.parse(text, BOUNDS)
    except InvalidPlan:
        return
    assert graph.tasks


def test_a_task_given_twice_is_done_once_and_its_followers_get_the_result() -> None:
    text = graph_json(
        (1, "research", "Read", []),
        (2, "research", "read", [1]),
        (3, "code", "read", [1, 2]),
        (4, "code", "run", [2]),
    )
    graph = INPUTS.parse(text, BOUNDS)
    assert [(task.id, task.specialist, task.inputs) for task in graph.tasks] == [
        (1, "research", ()),
        (2, "code", (1,)),
        (3, "code", (1,)),
    ]
    assert graph.repaired == "the same task was given twice to research"


def test_a_plan_for_what_is_left_counts_on_and_uses_what_is_done() -> None:
    bounds = PlanLimits(specialists=SPECIALISTS, max_tasks=3, max_depth=2, known=(1, 3))
    graph = INPUTS.parse(graph_json((5, "code", "a", [1, 3]), (6, "code", "b", [5])), bounds, 5)
    assert [(task.id, task.inputs) for task in graph.tasks] == [(5, (1, 3)), (6, (5,))]
    with pytest.raises(InvalidPlan, match="needs task 2, which does not exist"):
        INPUTS.parse(graph_json((5, "code", "a", [2])), bounds, 5)
    with pytest.raises(InvalidPlan, match="the id 3 is given to more than one task"):
        INPUTS.parse(graph_json((3, "code", "a", [])), bounds, 5)


@pytest.mark.parametrize("depth", [1, 4])
def test_the_schema_lets_a_task_use_earlier_ones_only_and_bounds_everything(depth: int) -> None:
    bounds = PlanLimits(specialists=SPECIALISTS, max_tasks=5, max_depth=depth, known=(2,))
    listed = INPUTS.schema(bounds, first=4)["properties"]["tasks"]
    assert listed["maxItems"] == len(listed["prefixItems"]) == 5
    for number, task in enumerate(listed["prefixItems"], 4):
        said = task["properties"]
        assert said["id"]["enum"] == [number]
        assert said["specialist"]["enum"] == sorted(SPECIALISTS)
        assert said["task"]["maxLength"] == bounds.task_chars
        allowed = [2, *range(4, number)] if depth > 1 else [2]
        assert said["inputs"]["items"]["enum"] == allowed
        assert said["inputs"]["maxItems"] == min(MAX_INPUTS, len(allowed))
    beyond = listed["items"]["properties"]  # for servers that know no prefixItems
    assert beyond["id"]["enum"] == [4, 5, 6, 7, 8]
    assert beyond["inputs"]["maxItems"] <= MAX_INPUTS
    first = INPUTS.schema(BOUNDS)["properties"]["tasks"]["prefixItems"][0]["properties"]["inputs"]
    assert first == {"type": "array", "maxItems": 0}


@pytest.mark.parametrize("tasks", [1, 2, 6])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_example_in_the_request_is_itself_a_valid_plan(tasks: int, depth: int) -> None:
    for known in (SPECIALISTS, ("code",)):
        bounds = PlanLimits(specialists=known, max_tasks=tasks, max_depth=depth)
        messages = INPUTS.request("Question: why?", {name: AGENTS[name] for name in known}, bounds)
        assert messages[-1].content == "Question: why?"
        graph = INPUTS.parse(messages[1].content, bounds)
        assert len(graph.tasks) == min(tasks, 3 if depth > 1 else 2)
        assert not graph.repaired
