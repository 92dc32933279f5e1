"""A thread that works off jobs, dies of nothing, and never leaves a caller waiting."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from actors.engine.job import ChatJob, EmbeddingJob, OutputBatch
from actors.engine.settings import EngineSettings
from actors.telemetry.memory import release_memory
from orchestration.errors import BackendFailed, NodeBusy

log = logging.getLogger(__name__)

J = TypeVar("J", ChatJob, EmbeddingJob)


class Worker(ABC, Generic[J]):
    """Runs `step` in a thread of its own while there is something to do; idle, it sleeps on its inbox, and
    calls `rest` once after `idle_after_s`.

    A step that raises fails every job at hand with `BackendFailed`, and the work goes on with the next.
    After `max_failures` such steps in a row the worker stops: whoever waits, and whoever comes, gets
    `BackendFailed` that says so.
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
        """Stop after the step that runs; blocks until the thread has ended."""
        self._closing = True
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places of this worker. Call it on the event loop; raises NodeBusy."""
        if self._outstanding >= self._places:
            raise NodeBusy(
                f"model {self.model!r} has {self._outstanding} generations running and waiting, "
                f"its limit is {self._places}",
                retry_after_s=1.0,
            )
        self._outstanding += 1
        try:
            yield
        finally:
            self._outstanding -= 1

    def submit(self, job: J) -> None:
        """Hand `job` to the thread; raises BackendFailed if it has stopped."""
        with self._gate:
            if self._stopped:
                raise BackendFailed(f"the engine of model {self.model!r} has stopped")
            self._inbox.put(job)

    def wake(self) -> None:
        """Have the thread look round, because a job was cancelled."""
        self._inbox.put(None)

    def window_s(self) -> float:
        """How long to wait for company now, before the next step."""
        return 0.0

    @abstractmethod
    def busy(self) -> bool:
        """Whether a step has anything to do."""

    @abstractmethod
    def accept(self, job: J) -> None:
        """Take in a job that came."""

    @abstractmethod
    def step(self) -> None:
        """Do one step of what is to be done."""

    def rest(self) -> None:
        """Give back memory that only the next jobs would use."""
        release_memory()

    @abstractmethod
    def abandon(self) -> list[J]:
        """Give up every job taken in, and return them."""

    def _run(self) -> None:
        failed_in_a_row = 0
        try:
            while not self._closing and failed_in_a_row < self._max_failures:
                try:
                    self._take_in()
                    self._gather()
                    if self.busy():
                        self.step()
                        failed_in_a_row = 0
                except Exception as error:  # whatever a step raises, nobody may be left waiting
                    failed_in_a_row += 1
                    self.failures += 1
                    log.exception("a step of model %s failed", self.model)
                    self._fail(self.abandon(), f"the model failed: {type(error).__name__}: {error}")
                self.outputs.flush()
        finally:
            self._end()

    def _take_in(self) -> None:
        """Accept what has come; with nothing to do, wait until something comes."""
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
        """What comes next, however long that takes."""
        try:
            return self._inbox.get(timeout=self._idle_after_s)
        except Empty:
            self.rest()
        return self._inbox.get()

    def _gather(self) -> None:
        """Wait for company, as long as that is wanted of what is at hand."""
        began = time.monotonic()
        while not self._closing and (left := began + self.window_s() - time.monotonic()) > 0:
            try:
                job = self._inbox.get(timeout=left)
            except Empty:
                return
            if job is not None:
                self.accept(job)

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
