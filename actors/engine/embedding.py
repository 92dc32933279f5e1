"""The engine of an embedding model: waiting texts are embedded together."""

from __future__ import annotations

import base64
from collections import deque

import numpy as np
from numpy.typing import NDArray

from actors.engine.job import EmbeddingJob
from actors.engine.runtime import Encoder
from actors.engine.settings import EngineSettings
from actors.engine.worker import EngineStats, Worker
from orchestration.messages import Finish, Usage, Vectors

STEP_TOKENS = 2048
"""Approximate limit of a step, which includes the input that crosses it; keeps a step well under a second."""


class EmbeddingEngine(Worker[EmbeddingJob]):
    """The loop of one embedding model.

    A step takes inputs from the head of the queue, of any number of requests: up to `embedding_batch` of them
    and about `STEP_TOKENS` tokens.
    """

    def __init__(self, model: str, encoder: Encoder, settings: EngineSettings) -> None:
        super().__init__(model, places=settings.slots + settings.max_waiting, settings=settings)
        self._encoder = encoder
        self._batch = settings.embedding_batch
        self._queue: deque[EmbeddingJob] = deque()
        self._done = 0
        """Number of embedded inputs of the first job in the queue."""
        self._prompt_tokens = 0
        self._steps = 0

    @property
    def stats(self) -> EngineStats:
        """Statistics, readable from any thread."""
        running = min(1, len(self._queue))
        return EngineStats(
            model=self.model,
            running=running,
            waiting=max(0, self._outstanding - running),
            prompt_tokens=self._prompt_tokens,
            steps=self._steps,
            failures=self.failures,
            healthy=self.healthy,
        )

    def busy(self) -> bool:
        return bool(self._queue)

    def accept(self, job: EmbeddingJob) -> None:
        self._queue.append(job)

    def abandon(self) -> list[EmbeddingJob]:
        jobs = list(self._queue)
        self._queue.clear()
        self._done = 0
        return jobs

    def step(self) -> None:
        taken = self._next()
        if not taken:
            return
        inputs = [tokens for job, first, last in taken for tokens in job.inputs[first:last]]
        vectors = self._encoder.embed(inputs)
        self._steps += 1
        at = 0
        for job, first, last in taken:
            part = vectors[at : at + last - first]
            at += last - first
            self.outputs.post(job.queue, Vectors(index=first, vectors=tuple(map(_base64, part))))
            if last == len(job.inputs):
                self._queue.popleft()
                self._done = 0
                tokens = sum(map(len, job.inputs))
                self._prompt_tokens += tokens
                self.outputs.post(job.queue, Finish(reason="stop", usage=Usage(prompt_tokens=tokens)))
            else:
                self._done = last

    def _next(self) -> list[tuple[EmbeddingJob, int, int]]:
        """The first jobs of the queue, each with the range of its inputs in the next batch."""
        while self._queue and self._queue[0].queue.cancelled:
            self._queue.popleft()
            self._done = 0
        taken: list[tuple[EmbeddingJob, int, int]] = []
        inputs, tokens, first = self._batch, STEP_TOKENS, self._done
        for job in self._queue:
            last = first
            while last < len(job.inputs) and inputs > 0 and tokens > 0:
                inputs -= 1
                tokens -= len(job.inputs[last])
                last += 1
            if last == first:
                break
            taken.append((job, first, last))
            first = 0
        return taken


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
