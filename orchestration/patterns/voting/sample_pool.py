"""Runs voters at the same time, within the budget, and stops them when enough have answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from orchestration.errors import BudgetExceeded, OrchestraError
from orchestration.patterns.base import StepResult
from orchestration.patterns.voting.voters import Voter

VoterResult = tuple[Voter, StepResult | OrchestraError]
AskVoter = Callable[[Voter], Coroutine[Any, Any, StepResult]]


class SamplePool:
    """Use it with `async with`: leaving it stops the running voters.

    A pattern yields to its caller while voters run, and an `asyncio.TaskGroup` must not be held over a
    `yield`: it turns the `GeneratorExit` of a caller that leaves into an exception group.
    """

    def __init__(
        self, voters: Sequence[Voter], ask: AskVoter, *, max_parallel: int, affords: Callable[[int], bool]
    ) -> None:
        """`voters` start in their order. `affords` says whether the budget allows that many at once."""
        self.waiting = list(voters)
        """The voters that have not started."""
        self.stopped: list[Voter] = []
        """The voters that were stopped; filled on leaving."""
        self._ask_voter = ask
        self._max_parallel = max_parallel
        self._affords = affords
        self._tasks: dict[asyncio.Task[StepResult], Voter] = {}
        self._started: dict[int, float] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        self.stopped = sorted(self._tasks.values(), key=lambda voter: voter.number)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def running(self) -> list[Voter]:
        return list(self._tasks.values())

    @property
    def pending(self) -> list[Voter]:
        """The voters without a result."""
        return [*self.running, *self.waiting]

    def seconds(self, voter: Voter) -> float:
        """The seconds since a voter started."""
        return asyncio.get_running_loop().time() - self._started[voter.number]

    def start(self, voters: int) -> None:
        """Start up to so many more voters, as `max_parallel` and the budget allow."""
        loop = asyncio.get_running_loop()
        while voters > 0 and self.waiting and len(self._tasks) < self._max_parallel:
            if self._tasks and not self._affords(len(self._tasks) + 1):
                return
            voter = self.waiting.pop(0)
            self._started[voter.number] = loop.time()
            self._tasks[loop.create_task(self._ask_voter(voter))] = voter
            voters -= 1

    async def next_results(self, timeout_s: float | None = None) -> list[VoterResult]:
        """Wait for the next results; empty when no voter is running, or none ended in time. When the budget
        is spent, the waiting voters are dropped."""
        if not self._tasks:
            return []
        done, _ = await asyncio.wait(self._tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        ended: list[VoterResult] = []
        for task in done:
            voter = self._tasks.pop(task)
            try:
                ended.append((voter, task.result()))
            except OrchestraError as error:
                ended.append((voter, error))
        if any(isinstance(result, BudgetExceeded) for _, result in ended):
            self.waiting = []
        return sorted(ended, key=lambda each: each[0].number)
