"""Detects generations whose backend produces no output: a hung engine reports no error."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from orchestration.errors import NoOutput

CHECKS = 4
"""Checks per stall limit: a stall is detected at most a quarter of the limit late."""


@dataclass(slots=True)
class _Wait:
    """A task that waits for its next output since `since`, for at most `limit_s`."""

    task: asyncio.Task[object]
    since: float
    limit_s: float
    stalled: bool = False


class StallDetector:
    """Cancels the task of a generation without a first output within `first_s`, or without another one within
    `limit_s` (seconds).

    The first output gets more time because of long prompts and full queues. `alive` counts like an output.
    One task checks all generations: a timer per output would cost more than the output.
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
        """Watch `task`, which waits for its first output."""
        self._waits[generation] = _Wait(task, time.monotonic(), self.first_s)

    def progress(self, generation: str) -> None:
        """Record an output."""
        wait = self._waits.get(generation)
        if wait is not None:
            wait.since, wait.limit_s = time.monotonic(), self.limit_s

    def alive(self, generation: str) -> None:
        """Record a sign of life without an output."""
        wait = self._waits.get(generation)
        if wait is not None:
            wait.since = time.monotonic()

    def stalled(self, generation: str) -> bool:
        """Whether it was cancelled because of a stall."""
        wait = self._waits.get(generation)
        return wait is not None and wait.stalled

    def forget(self, generation: str) -> None:
        self._waits.pop(generation, None)

    def error(self, generation: str, backend: str) -> NoOutput:
        """The error for a generation that `stalled`."""
        first = self._waits[generation].limit_s == self.first_s
        limit = f"first_output_s {self.first_s:g}" if first else f"stall_s {self.limit_s:g}"
        return NoOutput(f"{backend} stalled: no output within {limit}")

    async def _watch(self) -> None:
        looked, shorter = time.monotonic(), min(self.limit_s, self.first_s)
        while True:
            await asyncio.sleep(shorter / CHECKS)
            before, looked = looked, time.monotonic()
            if looked - before > shorter / 2:
                continue  # this process was suspended: give the backends their time
            for wait in list(self._waits.values()):
                if looked - wait.since > wait.limit_s and not wait.stalled:
                    wait.stalled = True
                    wait.task.cancel()
