"""Generations whose backend has stopped talking in the middle: a hung engine reports nothing by itself."""

from __future__ import annotations

import asyncio

from orchestration.errors import BackendFailed

CHECKS = 4
"""Looks at all generations within one limit: a stall is found at most a quarter of the limit late."""


class Stalls:
    """Cancels the task of a generation that made no progress for `limit_s`, once it has begun.

    Before the first output no limit but the deadline holds: a long prompt, or a full waiting room, is no
    stall. One task looks at all generations, because a timer for each output would cost more than it.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._heard: dict[str, tuple[float, asyncio.Task[object]]] = {}
        self._stalled: set[str] = set()
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    def progress(self, generation: str) -> None:
        """The backend said something; call it in the task that waits for the next output."""
        task = asyncio.current_task()
        if task is not None:
            self._heard[generation] = (asyncio.get_running_loop().time(), task)

    def stalled(self, generation: str) -> bool:
        """Whether it was cancelled for its silence."""
        return generation in self._stalled

    def forget(self, generation: str) -> None:
        self._heard.pop(generation, None)
        self._stalled.discard(generation)

    def error(self, backend: str) -> BackendFailed:
        return BackendFailed(f"{backend} stalled: no output within stall_s {self.limit_s:g}")

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            await asyncio.sleep(self.limit_s / CHECKS)
            before, looked = looked, loop.time()
            if looked - before > self.limit_s / 2:
                continue  # this process itself stood still: give the backend its time
            for generation, (heard, task) in list(self._heard.items()):
                if looked - heard > self.limit_s and generation not in self._stalled:
                    self._stalled.add(generation)
                    task.cancel()
