"""The driver's side of a partitioned model: an engine runtime whose layers and cache are in the stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actors.engine.kv import KvShape
from actors.engine.prefix import PrefixCache
from actors.engine.runtime import Encoder, OpenModel
from actors.engine.settings import EngineSettings
from actors.models.manifest import ModelManifest
from actors.triton.models.partition import StageCommand, StepCall, whole_shape
from orchestration.errors import InvalidRequest

Call = Callable[[StepCall, NDArray[np.int64]], NDArray[np.float32]]
"""Takes one step with tokens [n, t] through all stages: the logits [n, vocabulary] after the last token of
each row. Raises an OrchestraError when a stage fails."""


class PipelineCache:
    """The engine's view of the stages' keys and values.

    Commands are sent with the next step, so they need no call of their own. When all rows are free, no step
    may follow, so they are sent at once. Every stage applies them to its own part.
    """

    def __init__(self, shape: KvShape, call: Call, *, rows: int) -> None:
        self.shape = shape
        self._call = call
        self._rows = rows
        self._driver = time.time_ns()
        self._commands: list[tuple[int, int, int, int]] = []
        self._touched: set[int] = set()
        """Rows that may occupy memory in the stages."""

    def step(self, row: int, tokens: NDArray[np.int64], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        """The logits [n, vocabulary] after `tokens` [n, t] of the rows from `row` on."""
        commands = np.array(self._commands, np.int32).reshape(-1, 4)
        call = StepCall(driver=self._driver, row=row, lengths=lengths, commands=commands)
        # Commands are not repeated if the call fails: a stage that fails has lost its rows, and reports it.
        self._commands.clear()
        return self._call(call, tokens)

    def move(self, source: int, target: int, tokens: int) -> None:
        self._commands.append((StageCommand.MOVE, source, target, tokens))

    def reserve(self, blocks: int, block: int) -> None:
        """Do nothing: the stages know the number of blocks from their configuration."""

    def keep(self, place: int, row: int, start: int) -> None:
        self._commands.append((StageCommand.KEEP, row, place, start))

    def restore(self, place: int, row: int, start: int) -> None:
        self._commands.append((StageCommand.RESTORE, row, place, start))

    def drop(self, place: int) -> None:
        """Do nothing: the stages keep the block until it is overwritten."""

    def claim(self, row: int, tokens: int) -> None:
        self._touched.add(row)

    def fit(self, limit: int, free: Sequence[int]) -> None:
        """Free all unused rows: other models of the stages' devices may need the memory."""
        for row in self._touched.intersection(free):
            self._commands.append((StageCommand.FREE, row, 0, 0))
            self._touched.discard(row)
        if len(free) == self._rows and self._commands:
            self.step(0, np.empty((0, 1), np.int64), np.empty(0, np.int32))


class PipelineSession:
    """See `actors.engine.runtime.Session`; each step is one call of the pipeline."""

    def __init__(self, cache: PipelineCache) -> None:
        self._cache = cache

    def decode(self, tokens: NDArray[np.int64], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        return self._cache.step(0, tokens[:, np.newaxis], lengths)

    def prefill(self, row: int, tokens: NDArray[np.int64], past: int) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._cache.step(row, tokens[np.newaxis], np.array([past], np.int32))[0]
        return logits


class PipelineRuntime:
    """A model whose stages are reached by `call`. It loads only the tokenizer."""

    provider = "triton pipeline"

    def __init__(self, call: Call, *, reserves: bool = False) -> None:
        self._call = call
        self.reserves = reserves

    def shape(self, manifest: ModelManifest) -> KvShape:
        return whole_shape(manifest)

    def open(
        self, folder: Path, manifest: ModelManifest, settings: EngineSettings, *, rows: int, length: int
    ) -> OpenModel:
        cache = PipelineCache(self.shape(manifest), self._call, rows=rows)
        capacity = settings.prefix_cache_bytes
        prefix = PrefixCache(cache, block=settings.prefix_block, capacity_bytes=capacity)
        return OpenModel(session=PipelineSession(cache), kv=cache, prefix=prefix)

    def encoder(self, folder: Path) -> Encoder:
        raise InvalidRequest("an embedding model is not partitioned", param="model")
