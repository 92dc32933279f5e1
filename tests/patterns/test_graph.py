"""Graphs of subtasks: what is wrong with them, in which order they are done, and how long that takes."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.patterns.clipping import clip_fairly, estimate_tokens
from orchestration.patterns.graph import Bounds, Graph, Task
from orchestration.patterns.graph.execution import execute
from orchestration.patterns.graph.plan import (
    MOST_INPUTS,
    TASK_CHARS,
    InvalidGraph,
    graph_request,
    graph_schema,
    parse_graph,
)
from orchestration.patterns.graph.schedule import Schedule, critical_path
from orchestration.patterns.graph.validation import depths, find_cycle
from orchestration.tuning.durations import KEEP, MOST, PRIOR_S, Durations
from tests.patterns.graphs import (
    acyclic,
    edges_json,
    graph_json,
    graph_of,
    makespan,
    simulated,
    unhurried,
    wirings,
)
from tests.patterns.scripted import AGENTS, SPECIALISTS

BOUNDS = Bounds(specialists=SPECIALISTS, max_tasks=12, max_depth=12)
seconds = st.floats(0.01, 100)


def is_cyclic(edges: dict[int, list[int]]) -> bool:
    """By powers of the adjacency matrix: some walk of n steps exists just where there is a cycle."""
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
        graph = parse_graph(edges_json(edges), BOUNDS)
        assert len(graph.tasks) == len(edges)
        return
    with pytest.raises(InvalidGraph, match="wait for each other"):
        parse_graph(edges_json(edges), BOUNDS)
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
    with pytest.raises(InvalidGraph, match=f"task {task} needs task {missing}, which there is not"):
        parse_graph(edges_json(edges), BOUNDS)


@unhurried
@given(acyclic(), st.randoms())
def test_tasks_written_in_any_order_under_any_names_are_numbered_behind_what_they_need(
    edges: dict[int, list[int]], lot: random.Random
) -> None:
    written = [
        (f"t{each}", "code", f"do {each}", [f"t{need}" for need in needs]) for each, needs in edges.items()
    ]
    lot.shuffle(written)
    graph = parse_graph(graph_json(*written), BOUNDS)
    assert [task.id for task in graph.tasks] == list(range(1, len(edges) + 1))
    by_id = {task.id: task for task in graph.tasks}
    for task in graph.tasks:
        assert all(needed < task.id for needed in task.inputs)
        wanted = {f"do {each}" for each in edges[int(task.task.split()[1])]}
        assert {by_id[needed].task for needed in task.inputs} == wanted


@unhurried
@given(acyclic())
def test_a_plan_in_order_keeps_its_numbers(edges: dict[int, list[int]]) -> None:
    graph = parse_graph(edges_json(edges), BOUNDS)
    assert {task.id: sorted(task.inputs) for task in graph.tasks} == {
        each: sorted(needs) for each, needs in edges.items()
    }
    assert not graph.mended


def longest_row(edges: dict[int, list[int]], task: int) -> int:
    return 1 + max((longest_row(edges, needed) for needed in edges[task]), default=0)


@unhurried
@given(acyclic(), st.integers(1, 6))
def test_depth_is_the_longest_row_of_tasks_that_wait_for_each_other(
    edges: dict[int, list[int]], most: int
) -> None:
    rows = {str(each): longest_row(edges, each) for each in edges}
    assert depths({str(k): [str(each) for each in v] for k, v in edges.items()}) == rows
    bounds = Bounds(specialists=SPECIALISTS, max_tasks=12, max_depth=most)
    if max(rows.values()) <= most:
        parse_graph(edges_json(edges), bounds)
        return
    with pytest.raises(InvalidGraph, match=f"of {max(rows.values())} in a row .* at most {most} may"):
        parse_graph(edges_json(edges), bounds)


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
            "'wizard' of task 1 is no specialist; .* creative, reasoning",
        ),
        (graph_json((1, "code", "a", []), (1, "code", "b", [])), "the id 1 is given to more than one task"),
        (graph_json((1, "code", "a", [1])), "tasks 1 → 1 wait for each other"),
        (edges_json({each: [] for each in range(1, 15)}), "it has 14 tasks, and at most 12 are allowed"),
        ('{"tasks": ' + "[" * 100_000, "it has no task"),
        ('{"tasks": [' + "1" * 10_000, "it has no task"),
    ],
)
def test_bad_plans_are_refused_in_words(text: str, wrong: str) -> None:
    with pytest.raises(InvalidGraph, match=wrong):
        parse_graph(text, BOUNDS)


def test_all_that_is_wrong_is_said_at_once() -> None:
    text = graph_json((1, "wizard", "cast", [2]), (2, "code", "write", [1, 9]))
    with pytest.raises(InvalidGraph) as caught:
        parse_graph(text, BOUNDS)
    for said in ("wizard", "needs task 9", "→"):
        assert said in str(caught.value)


@unhurried
@given(acyclic(), st.data())
def test_a_plan_cut_off_anywhere_keeps_its_whole_tasks_or_is_refused(
    edges: dict[int, list[int]], data: st.DataObject
) -> None:
    text = edges_json(edges)
    try:
        graph = parse_graph(text[: data.draw(st.integers(0, len(text) - 1))], BOUNDS)
    except InvalidGraph:
        return
    assert graph.mended == "it was cut off"
    assert {task.task for task in graph.tasks} <= {f"do {each}" for each in edges}


anything = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@unhurried
@given(st.text() | anything.map(lambda value: json.dumps({"tasks": value})))
def test_any_text_is_a_plan_or_refused(text: str) -> None:
    try:
        graph = parse_graph(text, BOUNDS)
    except InvalidGraph:
        return
    assert graph.tasks


def test_the_same_task_given_twice_is_done_once_and_who_needs_it_gets_it() -> None:
    text = graph_json(
        (1, "research", "Read", []),
        (2, "research", "read", [1]),
        (3, "code", "read", [1, 2]),
        (4, "code", "run", [2]),
    )
    graph = parse_graph(text, BOUNDS)
    assert [(task.id, task.specialist, task.inputs) for task in graph.tasks] == [
        (1, "research", ()),
        (2, "code", (1,)),
        (3, "code", (1,)),
    ]
    assert graph.mended == "the same task was given twice to research"


def test_a_plan_for_what_is_left_counts_on_and_uses_what_is_done() -> None:
    bounds = Bounds(specialists=SPECIALISTS, max_tasks=3, max_depth=2, known=(1, 3))
    graph = parse_graph(graph_json((5, "code", "a", [1, 3]), (6, "code", "b", [5])), bounds, 5)
    assert [(task.id, task.inputs) for task in graph.tasks] == [(5, (1, 3)), (6, (5,))]
    with pytest.raises(InvalidGraph, match="needs task 2, which there is not"):
        parse_graph(graph_json((5, "code", "a", [2])), bounds, 5)
    with pytest.raises(InvalidGraph, match="the id 3 is given to more than one task"):
        parse_graph(graph_json((3, "code", "a", [])), bounds, 5)


@pytest.mark.parametrize("depth", [1, 4])
def test_the_schema_lets_a_task_use_earlier_ones_only_and_bounds_everything(depth: int) -> None:
    bounds = Bounds(specialists=SPECIALISTS, max_tasks=5, max_depth=depth, known=(2,))
    listed = graph_schema(bounds, first=4)["properties"]["tasks"]
    assert listed["maxItems"] == len(listed["prefixItems"]) == 5
    for number, task in enumerate(listed["prefixItems"], 4):
        said = task["properties"]
        assert said["id"]["enum"] == [number]
        assert said["specialist"]["enum"] == sorted(SPECIALISTS)
        assert said["task"]["maxLength"] == TASK_CHARS
        allowed = [2, *range(4, number)] if depth > 1 else [2]
        assert said["inputs"]["items"]["enum"] == allowed
        assert said["inputs"]["maxItems"] == min(MOST_INPUTS, len(allowed))
    beyond = listed["items"]["properties"]  # for servers that know no prefixItems
    assert beyond["id"]["enum"] == [4, 5, 6, 7, 8]
    assert beyond["inputs"]["maxItems"] <= MOST_INPUTS
    first = graph_schema(BOUNDS)["properties"]["tasks"]["prefixItems"][0]["properties"]["inputs"]
    assert first == {"type": "array", "maxItems": 0}


@pytest.mark.parametrize("tasks", [1, 2, 6])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_example_in_the_request_is_itself_a_valid_plan(tasks: int, depth: int) -> None:
    for known in (SPECIALISTS, ("code",)):
        bounds = Bounds(specialists=known, max_tasks=tasks, max_depth=depth)
        messages = graph_request("Question: why?", {name: AGENTS[name] for name in known}, bounds)
        assert messages[-1].content == "Question: why?"
        graph = parse_graph(messages[1].content, bounds)
        assert len(graph.tasks) == min(tasks, 3 if depth > 1 else 2)
        assert not graph.mended


@unhurried
@given(acyclic(), st.data(), st.integers(1, 5), st.sampled_from(["critical-path", "ready"]))
def test_no_task_runs_before_its_inputs_all_run_once_and_no_more_at_once_than_may(
    edges: dict[int, list[int]], data: st.DataObject, workers: int, order: str
) -> None:
    takes = {each: data.draw(seconds) for each in edges}
    times = simulated(graph_of(edges), takes, workers=workers, order=order)  # type: ignore[arg-type]
    assert set(times) == set(edges)
    for each, needs in edges.items():
        assert all(times[needed][1] <= times[each][0] for needed in needs)
        began = times[each][0]
        assert sum(start <= began < end for start, end in times.values()) <= workers


@unhurried
@given(acyclic(), st.data())
def test_with_room_for_all_the_wall_time_is_the_critical_path(
    edges: dict[int, list[int]], data: st.DataObject
) -> None:
    takes = {each: data.draw(seconds) for each in edges}
    path, length = critical_path(graph_of(edges).tasks, takes)
    times = simulated(graph_of(edges), takes, workers=len(edges))
    assert makespan(times) == pytest.approx(length)
    assert sum(takes[each] for each in path) == pytest.approx(length)
    assert edges[path[0]] == []
    assert all(before in edges[after] for before, after in pairwise(path))


@unhurried
@given(acyclic(), st.data(), st.integers(1, 4))
def test_no_schedule_is_longer_than_grahams_bound(
    edges: dict[int, list[int]], data: st.DataObject, workers: int
) -> None:
    """Graham 1969: the work spread evenly, and the critical path but for its own share of that."""
    takes = {each: data.draw(seconds) for each in edges}
    _, length = critical_path(graph_of(edges).tasks, takes)
    bound = sum(takes.values()) / workers + (1 - 1 / workers) * length
    assert makespan(simulated(graph_of(edges), takes, workers=workers)) <= bound * (1 + 1e-9)


def random_graph(lot: random.Random) -> dict[int, list[int]]:
    count = lot.randint(4, 14)
    return {
        each: sorted(lot.sample(range(1, each), min(each - 1, lot.randint(0, 2))))
        for each in range(1, count + 1)
    }


@pytest.mark.parametrize("workers", [2, 3])
def test_the_critical_path_first_is_on_average_faster_than_what_was_ready_first(workers: int) -> None:
    lot = random.Random(5)
    ratios = []
    for _ in range(400):
        edges = random_graph(lot)
        takes = {each: lot.lognormvariate(0, 1) for each in edges}
        first, listed = (
            makespan(simulated(graph_of(edges), takes, workers=workers, order=order))
            for order in ("critical-path", "ready")
        )
        ratios.append(first / listed)
    assert statistics.fmean(ratios) < 1
    assert sum(ratio > 1 for ratio in ratios) < sum(ratio < 1 for ratio in ratios)


def test_of_two_that_are_ready_the_one_on_which_more_hangs_begins_first_by_what_is_known_by_then() -> None:
    graph = graph_of({1: [], 2: [], 3: [2], 4: []})
    known = {1: 3.0, 2: 1.0, 3: 1.0, 4: 1.0}
    schedule = Schedule(graph, lambda task: known[task.id])
    assert schedule.next() == graph.tasks[0]
    known[4] = 9.0
    assert schedule.next() == graph.tasks[3]
    assert schedule.next() == graph.tasks[1]
    assert schedule.next() is None
    assert [task.id for task in schedule.held] == [3]
    schedule.without([2])
    assert schedule.next() == graph.tasks[2]
    assert schedule.held == []


def test_a_schedule_that_was_stopped_begins_nothing_more() -> None:
    schedule = Schedule(graph_of({1: [], 2: []}), lambda task: 1)
    assert schedule.next() is not None
    schedule.stop()
    assert schedule.next() is None
    assert [task.id for task in schedule.held] == [2]


def test_the_ends_of_a_graph_are_those_that_no_other_task_has_seen() -> None:
    graph = graph_of({1: [], 2: [1], 3: [1], 4: [2, 3]})
    assert graph.ends({1, 2, 3, 4}) == [4]
    assert graph.ends({1, 2, 3}) == [2, 3]
    assert graph.ends({1, 4}) == [1, 4]


async def test_a_task_begins_the_moment_its_own_inputs_are_there() -> None:
    """The second branch goes on to its end while the first is still at its beginning."""
    graph = graph_of({1: [], 2: [], 3: [2], 4: [1, 3]})
    order: list[int] = []
    branch_is_over = asyncio.Event()

    async def perform(task: Task) -> bool:
        if task.id == 1:
            await branch_is_over.wait()
        order.append(task.id)
        if task.id == 3:
            branch_is_over.set()
        return True

    async with asyncio.timeout(5):
        await execute(Schedule(graph, lambda task: 1), perform, max_parallel=4)
    assert order == [2, 3, 1, 4]


async def test_what_needs_a_task_that_failed_is_held_and_cancelling_stops_all() -> None:
    graph: Graph = graph_of({1: [], 2: [1], 3: []})
    schedule = Schedule(graph, lambda task: 1)
    stopped = asyncio.Event()
    began = asyncio.Event()

    async def perform(task: Task) -> bool:
        if task.id == 1:
            return False
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            stopped.set()
        return True

    running = asyncio.create_task(execute(schedule, perform, max_parallel=4))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert stopped.is_set()
    assert [task.id for task in schedule.held] == [2]


def test_durations_are_averages_by_agent_and_model_and_of_the_others_for_who_is_new() -> None:
    durations = Durations()
    assert durations.expected("code") == PRIOR_S
    durations.learn("code", "small", 2)
    assert durations.expected("code") == durations.expected("code", "small") == 2
    durations.learn("code", "large", 12)
    assert durations.expected("code", "small") == 2
    assert durations.expected("code", "large") == 12
    assert durations.expected("code") == pytest.approx(2 * KEEP + 12 * (1 - KEEP))
    assert durations.expected("code", "unknown") == durations.expected("code")
    durations.learn("research", "small", 6)
    assert durations.expected("creative") == pytest.approx((durations.expected("code") + 6) / 2)


def test_durations_of_many_models_stay_bounded_and_the_latest_are_kept() -> None:
    durations = Durations()
    for number in range(3 * MOST):
        durations.learn("code", f"m{number}", number)
    assert durations.expected("code", f"m{3 * MOST - 1}") == 3 * MOST - 1
    assert durations.expected("code", "m0") == durations.expected("code")


@unhurried
@given(st.lists(st.text(max_size=400), max_size=6), st.integers(0, 120))
def test_texts_clipped_fairly_fit_together_and_short_ones_stay_whole(texts: list[str], tokens: int) -> None:
    cut = clip_fairly(texts, tokens)
    note = estimate_tokens(" […99999 characters left out…] ")
    assert len(cut) == len(texts)
    clipped = sum("characters left out" in each for each in cut)
    assert sum(map(estimate_tokens, cut)) <= tokens + note * clipped + 1e-6
    for text, each in zip(texts, cut, strict=True):
        if estimate_tokens(text.strip()) <= tokens // max(1, len(texts)):
            assert each == text.strip()


def test_what_short_texts_leave_goes_to_long_ones() -> None:
    long = "word " * 500
    cut = clip_fairly(["short", long], 100)
    assert cut[0] == "short"
    assert estimate_tokens(cut[1]) > 90
