"""Generations whose backend says nothing, or nothing more: a hung engine reports nothing by itself."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from orchestration.errors import NoOutput

CHECKS = 4
"""Looks at all generations within the shorter limit: a stall is found at most a quarter of it late."""


@dataclass(slots=True)
class _Wait:
    """For the next output, since `since`, which may take `limit_s`."""

    task: asyncio.Task[object]
    since: float
    limit_s: float
    stalled: bool = False


class StallDetector:
    """Cancels the task of a generation whose backend said nothing for `first_s` seconds, or nothing more for
    `limit_s`.

    The first output has far more time: a long prompt, or a full waiting room, is no stall. A sign that the
    backend is `alive` counts like an output. One task looks at all generations, because a timer for each
    output would cost more than it.
    """

    def __init__(self, limit_s: float, first_s: float) -> None:
        self.limit_s = limit_s
        self.first_s = first_s
        self._waits: dict[str, _Wait] = {}
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    def begin(self, generation: str, task: asyncio.Task[object]) -> None:
        """`task` waits for its outputs from now on."""
        self._waits[generation] = _Wait(task, time.monotonic(), self.first_s)

    def progress(self, generation: str) -> None:
        """The backend said something."""
        wait = self._waits.get(generation)
        if wait is not None:
            wait.since, wait.limit_s = time.monotonic(), self.limit_s

    def alive(self, generation: str) -> None:
        """The backend works on it, and has said nothing yet."""
        wait = self._waits.get(generation)
        if wait is not None:
            wait.since = time.monotonic()

    def stalled(self, generation: str) -> bool:
        """Whether it was cancelled for its silence."""
        wait = self._waits.get(generation)
        return wait is not None and wait.stalled

    def forget(self, generation: str) -> None:
        self._waits.pop(generation, None)

    def error(self, generation: str, backend: str) -> NoOutput:
        """What is to be told of one that `stalled`."""
        first = self._waits[generation].limit_s == self.first_s
        limit = f"first_output_s {self.first_s:g}" if first else f"stall_s {self.limit_s:g}"
        return NoOutput(f"{backend} stalled: no output within {limit}")

    async def _watch(self) -> None:
        looked, shorter = time.monotonic(), min(self.limit_s, self.first_s)
        while True:
            await asyncio.sleep(shorter / CHECKS)
            before, looked = looked, time.monotonic()
            if looked - before > shorter / 2:
                continue  # this process itself stood still: give the backend its time
            for wait in list(self._waits.values()):
                if looked - wait.since > wait.limit_s and not wait.stalled:
                    wait.stalled = True
                    wait.task.cancel()
