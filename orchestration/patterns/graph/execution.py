"""Tasks at work: each begins the moment its inputs are there and there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from orchestration.patterns.graph.schedule import Schedule
from orchestration.patterns.graph.task import Task


async def execute(
    schedule: Schedule, perform: Callable[[Task], Awaitable[bool]], *, max_parallel: int
) -> None:
    """Perform all tasks that can be, so many at once at most. `perform` says whether the result is there:
    where it is not, those that need it stay `held`. Being cancelled stops all that are at work."""
    at_work = 0

    async def work(task: Task) -> None:
        nonlocal at_work
        if await perform(task):
            schedule.done(task.id)
        at_work -= 1
        begin()

    def begin() -> None:
        nonlocal at_work
        while at_work < max_parallel and (task := schedule.next()) is not None:
            at_work += 1
            group.create_task(work(task))

    async with asyncio.TaskGroup() as group:
        begin()
