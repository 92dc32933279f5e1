"""Graphs of subtasks for tests: as a model writes them, and simulated."""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from orchestration.patterns import RunContext
from orchestration.patterns.graph import Task, TaskGraph, TaskOrder
from orchestration.patterns.graph.schedule import Schedule
from tests.orchestration.patterns.scripted import Scripted

unhurried = settings(deadline=None)
"""Settings of property tests without a deadline, so that a busy machine fails none."""

Written = tuple[object, str, str, Sequence[object]]
"""Id, specialist, task and inputs."""


def graph_json(*tasks: Written) -> str:
    return json.dumps(
        {
            "tasks": [
                {"id": name, "specialist": who, "task": task, "inputs": list(inputs)}
                for name, who, task, inputs in tasks
            ]
        }
    )


DIAMOND = graph_json(
    (1, "research", "read", []),
    (2, "code", "write", [1]),
    (3, "creative", "draw", [1]),
    (4, "reasoning", "weigh", [2, 3]),
)
"""A start, two branches and an end."""


def edges_json(edges: Mapping[int, Sequence[int]], who: str = "research") -> str:
    """A plan of tasks `do 1`, `do 2`, … with these inputs."""
    return graph_json(*((number, who, f"do {number}", inputs) for number, inputs in edges.items()))


def graph_of(edges: Mapping[int, Sequence[int]]) -> TaskGraph:
    return TaskGraph(
        tasks=tuple(
            Task(id=number, specialist="research", task=f"do {number}", inputs=tuple(inputs))
            for number, inputs in edges.items()
        )
    )


@st.composite
def wirings(draw: st.DrawFn, most: int = 8) -> dict[int, list[int]]:
    """Tasks with any inputs, themselves included."""
    count = draw(st.integers(1, most))
    needs = st.lists(st.integers(1, count), max_size=3, unique=True)
    return {number: draw(needs) for number in range(1, count + 1)}


@st.composite
def acyclic(draw: st.DrawFn, most: int = 12) -> dict[int, list[int]]:
    """Tasks with earlier ones as inputs."""
    count = draw(st.integers(1, most))
    return {
        number: draw(st.lists(st.integers(1, number - 1), max_size=3, unique=True)) if number > 1 else []
        for number in range(1, count + 1)
    }


def simulated(
    graph: TaskGraph,
    seconds: Mapping[int, float],
    *,
    workers: int,
    order: TaskOrder = "critical-path",
) -> dict[int, tuple[float, float]]:
    """The start and end of each task, where tasks take exactly these seconds and `workers` run at once."""
    schedule = Schedule(graph, lambda task: seconds[task.id], order=order)
    times: dict[int, tuple[float, float]] = {}
    at_work: list[tuple[float, int]] = []
    now = 0.0
    while True:
        while len(at_work) < workers and (task := schedule.next()) is not None:
            times[task.id] = (now, now + seconds[task.id])
            heapq.heappush(at_work, (now + seconds[task.id], task.id))
        if not at_work:
            return times
        now, ended = heapq.heappop(at_work)
        schedule.done(ended)


def makespan(times: Mapping[int, tuple[float, float]]) -> float:
    return max(end for _, end in times.values())


def names(context: RunContext) -> list[str]:
    return [step.name for step in context.steps]


def events(ask: Scripted, kind: str) -> list[dict[str, Any]]:
    return [data for each, data in ask.happened if each == kind]
