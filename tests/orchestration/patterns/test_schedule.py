"""The execution of graphs of subtasks: its order, its time, and the durations it learns."""

from __future__ import annotations

import asyncio
import random
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.bandit.durations import KEEP, MAX_AVERAGES, PRIOR_S, Durations
from orchestration.patterns.graph import Task, TaskGraph
from orchestration.patterns.graph.schedule import Schedule, critical_path, execute
from tests.orchestration.patterns.graphs import acyclic, graph_of, makespan, simulated, unhurried

seconds = st.floats(0.01, 100)


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


def test_the_ready_task_with_the_longest_path_starts_first_by_the_latest_estimates() -> None:
    graph = graph_of({1: [], 2: [], 3: [2], 4: []})
    known = {1: 3.0, 2: 1.0, 3: 1.0, 4: 1.0}
    schedule = Schedule(graph, lambda task: known[task.id])
    assert schedule.next() == graph.tasks[0]
    known[4] = 9.0
    assert schedule.next() == graph.tasks[3]
    assert schedule.next() == graph.tasks[1]
    assert schedule.next() is None
    assert [task.id for task in schedule.not_started] == [3]
    schedule.done(2)
    assert schedule.next() == graph.tasks[2]
    assert schedule.not_started == []


def test_a_schedule_that_was_stopped_begins_nothing_more() -> None:
    schedule = Schedule(graph_of({1: [], 2: []}), lambda task: 1)
    assert schedule.next() is not None
    schedule.stop()
    assert schedule.next() is None
    assert [task.id for task in schedule.not_started] == [2]


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


async def test_followers_of_a_failed_task_do_not_start_and_cancelling_stops_all() -> None:
    graph: TaskGraph = graph_of({1: [], 2: [1], 3: []})
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
    assert [task.id for task in schedule.not_started] == [2]


def test_durations_are_averages_by_agent_and_model_and_of_all_for_a_new_one() -> None:
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
    for number in range(3 * MAX_AVERAGES):
        durations.learn("code", f"m{number}", number)
    assert durations.expected("code", f"m{3 * MAX_AVERAGES - 1}") == 3 * MAX_AVERAGES - 1
    assert durations.expected("code", "m0") == durations.expected("code")
