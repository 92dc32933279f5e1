"""Voters at work: as many as are wanted, and as the budget lets, stopped when enough have answered."""

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
    """Use it with `async with`: leaving it stops the voters that are at work.

    A pattern yields to its caller while voters are at work, and an `asyncio.TaskGroup` must not be held over
    a `yield`: it makes a group of the `GeneratorExit` of a caller that leaves. This is what is needed of it.
    """

    def __init__(
        self, voters: Sequence[Voter], ask: AskVoter, *, max_parallel: int, affords: Callable[[int], bool]
    ) -> None:
        """`voters` begin in their order. `affords` says whether the budget lets so many work at once."""
        self.waiting = list(voters)
        """Those that have not begun."""
        self.stopped: list[Voter] = []
        """Those that were stopped; filled on leaving."""
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
        """Those not heard yet."""
        return [*self.running, *self.waiting]

    def seconds(self, voter: Voter) -> float:
        """How long it has been at work."""
        return asyncio.get_running_loop().time() - self._started[voter.number]

    def start(self, voters: int) -> None:
        """Let so many more begin, as far as may be at once and the budget reaches."""
        loop = asyncio.get_running_loop()
        while voters > 0 and self.waiting and len(self._tasks) < self._max_parallel:
            if self._tasks and not self._affords(len(self._tasks) + 1):
                return
            voter = self.waiting.pop(0)
            self._started[voter.number] = loop.time()
            self._tasks[loop.create_task(self._ask_voter(voter))] = voter
            voters -= 1

    async def next_results(self, timeout_s: float | None = None) -> list[VoterResult]:
        """Wait for the next to end; empty when none is at work, or none ended in time. Once the budget is
        spent, no other begins."""
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
        if any(isinstance(said, BudgetExceeded) for _, said in ended):
            self.waiting = []
        return sorted(ended, key=lambda each: each[0].number)
