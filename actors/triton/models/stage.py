"""One stage of a partitioned model: its layers, and its part of every row's keys and values."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from actors.engine.kv import KvCache
from actors.engine.loading import cache_size
from actors.engine.sessions.torch import LlamaLayers, tensor_of
from actors.engine.settings import EngineSettings
from actors.models.manifest import ModelManifest
from actors.triton.models.partition import LayerRange, StageCommand, StepCall, whole_shape
from orchestration.errors import BackendFailed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlacement:
    """The layers of a stage and their device. `reserves`: as in its driver (`PipelineRuntime`)."""

    name: str
    share: LayerRange
    device: str = "cpu"
    reserves: bool = False
    ttl_s: float = 60.0
    """Maximum time without a call of the driver while rows are in use."""


class PipelineStage:
    """Obeys one driver at a time; see `StepCall`.

    A driver may die silently, so after `ttl_s` without a call its rows and cached blocks are freed. A slow
    driver, or one whose stage was reloaded, must not continue from them: the stage counts what each row and
    place holds, and a step that expects more is an error.
    """

    @classmethod
    def load(cls, folder: Path, place: StagePlacement, settings: EngineSettings) -> PipelineStage:
        """Load the layers of `place`. Blocks for seconds. Raises what `LlamaLayers` raises."""
        manifest = ModelManifest.read(folder)
        share = place.share
        layers = LlamaLayers(folder, manifest, first=share.first, last=share.last, device=place.device)
        whole = whole_shape(manifest)
        rows, length = cache_size(manifest, settings, whole, reserves=place.reserves)
        kv = layers.cache(rows=rows, length=length)
        blocks = settings.prefix_cache_bytes // (settings.prefix_block * whole.token_bytes)
        if blocks:
            kv.reserve(blocks, settings.prefix_block)
        torch.set_num_threads(settings.threads)
        return cls(place.name, layers, kv, ttl_s=place.ttl_s)

    def __init__(self, name: str, layers: LlamaLayers, kv: KvCache, *, ttl_s: float) -> None:
        self.name = name
        self.on_held: Callable[[int], None] = lambda tokens: None
        """Called with the number of held tokens, from any thread."""
        self._layers = layers
        self._kv = kv
        self._tensor = tensor_of(kv)
        self._ttl_s = ttl_s
        self._driver = 0
        self._held = [0] * kv.rows
        """Number of cached tokens of each row."""
        self._blocks: set[int] = set()
        """Places with a cached block."""
        self._called = time.monotonic()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._watch_driver, name=f"{name}-ttl", daemon=True)
        self._watch.start()

    @property
    def ends(self) -> bool:
        """Whether it returns logits."""
        return self._layers.ends

    @property
    def held(self) -> int:
        """Cached tokens of all rows."""
        return sum(self._held)

    def step(self, call: StepCall, x: NDArray[Any]) -> NDArray[np.float32]:
        """Run `x` through the layers for the call's rows, as `LlamaLayers.run`.

        Raises BackendFailed for an outdated driver, and for a row that lacks expected tokens.
        """
        with self._lock:
            self._called = time.monotonic()
            try:
                self._obey(call)
                for row, length in enumerate(call.lengths.tolist(), call.row):
                    self._expect(length <= self._held[row], f"row {row}")
                    self._hold(row, length + x.shape[1])
            finally:
                self.on_held(self.held)
            if len(call.lengths) == 0:
                return self._nothing()
            past = call.lengths.astype(np.int64)
            y = self._layers.run(torch.from_numpy(x), self._tensor, call.row, past)
            computed: NDArray[np.float32] = y.float().cpu().numpy()
            return computed

    def _nothing(self) -> NDArray[np.float32]:
        manifest = self._layers.manifest
        return np.empty(
            (0, manifest.vocabulary) if self._layers.ends else (0, 1, manifest.hidden), np.float32
        )

    def close(self) -> None:
        """Stop the thread that watches for a silent driver."""
        self._closed.set()
        self._watch.join()

    def _obey(self, call: StepCall) -> None:
        if call.driver < self._driver:
            raise BackendFailed(f"stage {self.name!r} obeys a newer driver")
        if call.driver > self._driver:
            self._driver = call.driver
            self._forget()
        for command, row, other, number in call.commands.tolist():
            if command == StageCommand.MOVE:
                self._expect(number <= self._held[row], f"row {row}")
                self._kv.move(row, other, number)
                self._hold(other, number)
            elif command == StageCommand.KEEP:
                self._kv.keep(other, row, number)
                self._blocks.add(other)
            elif command == StageCommand.RESTORE:
                self._expect(other in self._blocks and number <= self._held[row], f"block {other}")
                self._kv.restore(other, row, number)
                self._hold(row, number + self._kv.block)
            else:
                self._free(row)

    def _expect(self, held: bool, what: str) -> None:
        if not held:
            raise BackendFailed(
                f"stage {self.name!r} lost {what}: it was reloaded, or its driver was silent for ttl_s"
            )

    def _hold(self, row: int, tokens: int) -> None:
        self._held[row] = tokens
        self._kv.claim(row, tokens)

    def _free(self, row: int) -> None:
        self._kv.trim(row)
        self._held[row] = 0

    def _forget(self) -> None:
        for row in range(self._kv.rows):
            self._free(row)
        self._blocks.clear()

    def _watch_driver(self) -> None:
        while not self._closed.wait(self._ttl_s / 4):
            with self._lock:
                if self.held and time.monotonic() - self._called > self._ttl_s:
                    log.warning(
                        "stage %s: no call of its driver for %.0f s; rows freed", self.name, self._ttl_s
                    )
                    self._forget()
                    self.on_held(0)
