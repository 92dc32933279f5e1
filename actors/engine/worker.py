"""A thread that runs the steps of an engine, and answers every job even when steps fail."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from actors.engine.job import ChatJob, EmbeddingJob, OutputBatch
from actors.engine.settings import EngineSettings
from actors.telemetry.memory import release_memory
from orchestration.errors import BackendFailed, NodeBusy

log = logging.getLogger(__name__)

J = TypeVar("J", ChatJob, EmbeddingJob)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Statistics of one model's engine. Counters start at 0 with the process."""

    model: str
    """Name of the model."""
    running: int = 0
    """Generations in a slot."""
    waiting: int = 0
    """Accepted generations that wait for a slot or for memory."""
    kv_tokens: int = 0
    """Tokens whose keys and values are in the slots."""
    kv_tokens_limit: int = 0
    """Maximum of `kv_tokens`."""
    cache_bytes: int = 0
    """Bytes of keys and values in the slots and in the prefix cache."""
    prompt_tokens: int = 0
    """Counter: prompt tokens of started generations."""
    cached_tokens: int = 0
    """Counter: prompt tokens taken from the prefix cache."""
    prefix_hits: int = 0
    """Counter: generations that reused at least one cached block."""
    completion_tokens: int = 0
    """Counter: tokens generated."""
    steps: int = 0
    """Counter: calls of the model."""
    failures: int = 0
    """Counter: calls of the model that failed."""
    healthy: bool = True
    """Whether the engine takes jobs."""


class Worker(ABC, Generic[J]):
    """Runs `step` in its own thread while there is work. When idle it waits for jobs, and calls `rest` once
    after `idle_after_s`.

    A step that raises fails all current jobs with `BackendFailed`. After `max_failures` failed steps in a row
    the worker stops: waiting and new jobs get `BackendFailed`.
    """

    def __init__(self, model: str, *, places: int, settings: EngineSettings) -> None:
        self.model = model
        self.outputs = OutputBatch()
        self.failures = 0
        """Counter: steps that failed."""
        self._places = places
        self._max_failures = settings.max_failures
        self._idle_after_s = settings.idle_after_s
        self._outstanding = 0
        self._inbox: SimpleQueue[J | None] = SimpleQueue()
        self._closing = False
        self._stopped = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"engine:{model}", daemon=True)

    @property
    def healthy(self) -> bool:
        return self._thread.is_alive() and not self._stopped

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop after the current step. Blocks until the thread has ended."""
        self._closing = True
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the worker's places. Call it on the event loop. Raises NodeBusy if none is free."""
        if self._outstanding >= self._places:
            raise NodeBusy(
                f"limit reached: model {self.model!r} has {self._outstanding} of {self._places} generations "
                "running and waiting (slots + max_waiting)",
                retry_after_s=1.0,
            )
        self._outstanding += 1
        try:
            yield
        finally:
            self._outstanding -= 1

    def submit(self, job: J) -> None:
        """Pass `job` to the thread. Raises BackendFailed if the thread has stopped."""
        with self._gate:
            if self._stopped:
                raise BackendFailed(f"the engine of model {self.model!r} has stopped")
            self._inbox.put(job)

    def wake(self) -> None:
        """Wake the thread because a job was cancelled."""
        self._inbox.put(None)

    @abstractmethod
    def busy(self) -> bool:
        """Whether there is work for a step."""

    @abstractmethod
    def accept(self, job: J) -> None:
        """Accept a new job."""

    @abstractmethod
    def step(self) -> None:
        """Run one step."""

    def rest(self) -> None:
        """Free memory that only later jobs would use; called when idle."""
        release_memory()

    @abstractmethod
    def abandon(self) -> list[J]:
        """Drop all accepted jobs and return them."""

    def _run(self) -> None:
        failed_in_a_row = 0
        try:
            while not self._closing and failed_in_a_row < self._max_failures:
                try:
                    self._take_in()
                    if self.busy():
                        self.step()
                        failed_in_a_row = 0
                except Exception as error:  # any error must reach the callers
                    failed_in_a_row += 1
                    self.failures += 1
                    log.exception("a step of model %s failed", self.model)
                    self._fail(self.abandon(), f"the model failed: {type(error).__name__}: {error}")
                self.outputs.flush()
        finally:
            self._end()

    def _take_in(self) -> None:
        """Accept new jobs; when idle, wait for one."""
        if not self.busy() and (job := self._awaited()) is not None:
            self.accept(job)
        while True:
            try:
                job = self._inbox.get_nowait()
            except Empty:
                return
            if job is not None:
                self.accept(job)

    def _awaited(self) -> J | None:
        """The next job; waits as long as it takes."""
        try:
            return self._inbox.get(timeout=self._idle_after_s)
        except Empty:
            self.rest()
        return self._inbox.get()

    def _fail(self, jobs: list[J], reason: str) -> None:
        for job in jobs:
            self.outputs.post(job.queue, BackendFailed(f"model {self.model!r}: {reason}"))

    def _end(self) -> None:
        with self._gate:
            self._stopped = True
        jobs = self.abandon()
        while True:
            try:
                job = self._inbox.get_nowait()
            except Empty:
                break
            if job is not None:
                jobs.append(job)
        self._fail(jobs, "the engine was closed" if self._closing else "the engine has stopped")
        self.outputs.flush()
