"""Voices at work: so many at once as are wanted and the budget lets, and stopped when enough was heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from orchestration.errors import BudgetSpent, OrchestraError
from orchestration.patterns.base import Answer
from orchestration.patterns.voting.voices import Voice

Heard = tuple[Voice, Answer | OrchestraError]
Speak = Callable[[Voice], Coroutine[Any, Any, Answer]]


class Crowd:
    """Use it with `async with`: leaving it stops the voices that still speak.

    A pattern yields to its caller while voices are at work, and an `asyncio.TaskGroup` must not be held over
    a `yield`: it makes a group of the `GeneratorExit` of a caller that leaves. This is what is needed of it.
    """

    def __init__(
        self, voices: Sequence[Voice], speak: Speak, *, at_once: int, affords: Callable[[int], bool]
    ) -> None:
        """`affords` says whether the budget lets so many speak at the same time."""
        self.silent = list(voices)
        """Those that have not begun."""
        self.cut: list[Voice] = []
        """Those that were stopped; filled on leaving."""
        self.unaffordable: list[Voice] = []
        """Those for whom the budget does not reach."""
        self._speak = speak
        self._at_once = at_once
        self._affords = affords
        self._tasks: dict[asyncio.Task[Answer], Voice] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        self.cut = sorted(self._tasks.values(), key=lambda voice: voice.number)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def out(self) -> list[Voice]:
        """Those not heard yet."""
        return [*self._tasks.values(), *self.silent]

    async def heard(self) -> list[Heard]:
        """Let voices begin, and wait for the next to end; empty when all were heard. Once the budget is
        spent, no other begins."""
        self._begin()
        if not self._tasks:
            return []
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        ended: list[Heard] = []
        for task in done:
            voice = self._tasks.pop(task)
            try:
                ended.append((voice, task.result()))
            except OrchestraError as error:
                ended.append((voice, error))
        if any(isinstance(said, BudgetSpent) for _, said in ended):
            self.unaffordable, self.silent = self.silent, []
        return sorted(ended, key=lambda each: each[0].number)

    def _begin(self) -> None:
        while self.silent and len(self._tasks) < self._at_once:
            if self._tasks and not self._affords(len(self._tasks) + 1):
                return
            voice = self.silent.pop(0)
            self._tasks[asyncio.get_running_loop().create_task(self._speak(voice))] = voice
