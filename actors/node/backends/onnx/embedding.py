"""Sentence embeddings: what waits is embedded together."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.node.backends.base import Embeddings, Finish
from actors.node.backends.onnx.job import EmbeddingJob
from actors.node.backends.onnx.session import load_session
from actors.node.backends.onnx.settings import OnnxSettings
from actors.node.backends.onnx.stats import EngineStats
from actors.node.backends.onnx.worker import Worker
from orchestration.errors import BackendFailed
from orchestration.messages import Usage


class EmbeddingSession:
    """A BERT-like encoder: `input_ids`, `attention_mask` and maybe `token_type_ids`, all int64."""

    def __init__(self, folder: Path, settings: OnnxSettings) -> None:
        self.runtime: Any = load_session(folder, settings)
        self._inputs = [value.name for value in self.runtime.get_inputs()]
        unknown = set(self._inputs) - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown:
            raise BackendFailed(f"the embedding graph in {str(folder)!r} wants the input {min(unknown)!r}")
        self._output = self.runtime.get_outputs()[0].name

    def embed(self, inputs: Sequence[list[int]]) -> NDArray[np.float32]:
        """Unit vectors [inputs, hidden]: the mean of the last hidden states of each input's tokens."""
        longest = max(map(len, inputs))
        ids = np.zeros((len(inputs), longest), np.int64)
        mask = np.zeros_like(ids)
        for at, tokens in enumerate(inputs):
            ids[at, : len(tokens)] = tokens
            mask[at, : len(tokens)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self.runtime.run([self._output], {name: feeds[name] for name in self._inputs})[0]
        weights = mask[..., np.newaxis].astype(np.float32)
        mean = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        vectors: NDArray[np.float32] = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        return vectors.astype(np.float32)


class EmbeddingEngine(Worker[EmbeddingJob]):
    """The loop of one embedding model.

    A step takes up to `embedding_batch` inputs from the head of the queue, whoever they belong to.
    """

    def __init__(self, model: str, session: EmbeddingSession, settings: OnnxSettings) -> None:
        super().__init__(
            model, places=settings.slots + settings.max_waiting, max_failures=settings.max_failures
        )
        self._session = session
        self._batch = settings.embedding_batch
        self._queue: deque[EmbeddingJob] = deque()
        self._done = 0
        """Inputs of the job at the head that have been embedded."""
        self._prompt_tokens = 0
        self._steps = 0

    @property
    def stats(self) -> EngineStats:
        """A reading from any thread."""
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
        vectors = self._session.embed(inputs)
        self._steps += 1
        at = 0
        for job, first, last in taken:
            part = vectors[at : at + last - first]
            at += last - first
            self.outbox.post(job.sink, Embeddings(index=first, vectors=tuple(map(_base64, part))))
            if last == len(job.inputs):
                self._queue.popleft()
                self._done = 0
                tokens = sum(map(len, job.inputs))
                self._prompt_tokens += tokens
                self.outbox.post(job.sink, Finish(reason="stop", usage=Usage(prompt_tokens=tokens)))
            else:
                self._done = last

    def _next(self) -> list[tuple[EmbeddingJob, int, int]]:
        """The jobs at the head with the range of their inputs that fits one batch."""
        while self._queue and self._queue[0].sink.cancelled:
            self._queue.popleft()
            self._done = 0
        taken: list[tuple[EmbeddingJob, int, int]] = []
        room, first = self._batch, self._done
        for job in self._queue:
            last = min(len(job.inputs), first + room)
            taken.append((job, first, last))
            room -= last - first
            first = 0
            if room == 0:
                break
        return taken


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
