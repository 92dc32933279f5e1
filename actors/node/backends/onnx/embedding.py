"""Sentence embeddings: what waits is embedded together."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Sequence
from pathlib import Path

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

_STEP_TOKENS = 2048


class EmbeddingSession:
    """A sentence encoder: `input_ids` and `attention_mask`, int64 [batch, sequence], in; unit vectors
    `embedding`, float32 [batch, hidden], out."""

    def __init__(self, folder: Path, settings: OnnxSettings) -> None:
        self._session = load_session(folder, settings)
        have = {value.name for value in self._session.get_inputs()}
        if have != {"input_ids", "attention_mask"}:
            raise BackendFailed(f"the embedding graph in {str(folder)!r} has the inputs {sorted(have)}")

    def embed(self, inputs: Sequence[list[int]]) -> NDArray[np.float32]:
        """The vectors [inputs, hidden] of tokenised texts, computed in groups of like length."""
        groups = alike(list(map(len, inputs)))
        parts = [self._run([inputs[at] for at in group]) for group in groups]
        vectors: NDArray[np.float32] = np.concatenate(parts)[np.argsort(np.concatenate(groups))]
        return vectors

    def _run(self, inputs: Sequence[list[int]]) -> NDArray[np.float32]:
        ids = np.zeros((len(inputs), max(map(len, inputs))), np.int64)
        mask = np.zeros_like(ids)
        for at, tokens in enumerate(inputs):
            ids[at, : len(tokens)] = tokens
            mask[at, : len(tokens)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask}
        vectors: NDArray[np.float32] = self._session.run(["embedding"], feeds)[0]
        return vectors


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of `lengths` in groups to be padded to their longest, which wastes at most a third."""
    groups: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and lengths[at] <= 1.5 * lengths[groups[-1][0]]:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups


class EmbeddingEngine(Worker[EmbeddingJob]):
    """The loop of one embedding model.

    A step takes inputs from the head of the queue, whoever they belong to: up to `embedding_batch` of them
    and about `_STEP_TOKENS` tokens, so that a step stays well under a second.
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
        inputs, tokens, first = self._batch, _STEP_TOKENS, self._done
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
