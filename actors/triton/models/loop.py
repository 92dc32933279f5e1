"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads. `on_end` is called in its thread when it ends for any reason."""

    def __init__(self, name: str, on_end: Callable[[], None]) -> None:
        self.loop = asyncio.new_event_loop()
        self._on_end = on_end
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it runs; false from just before `on_end`."""
        return not self._ended

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the loop; returns or raises its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def stop(self) -> None:
        if self.alive:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        except BaseException:  # also SystemExit: it ends this thread and is logged nowhere else
            log.exception("the loop %s died", self._thread.name)
        finally:
            self._ended = True
            self._on_end()
