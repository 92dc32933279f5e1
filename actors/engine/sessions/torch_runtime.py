"""Models in PyTorch, on a CPU or a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from actors.engine.kv import KvCache, KvShape
from actors.engine.prefix import PrefixCache
from actors.engine.runtime import Encoder, OpenModel
from actors.engine.sessions.torch import LlamaLayers, is_lazy, kv_shape, parse_device, parse_dtype, tensor_of
from actors.engine.settings import EngineSettings, TorchSettings
from actors.models.manifest import ModelManifest
from orchestration.errors import InvalidRequest


class TorchSession:
    """Runs a whole llama over the rows of its cache; see `actors.engine.runtime.Session`."""

    def __init__(self, layers: LlamaLayers, kv: KvCache) -> None:
        self._layers = layers
        self._kv = tensor_of(kv)

    def decode(self, tokens: NDArray[np.int64], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        return self._run(tokens[:, None], 0, lengths.astype(np.int64))

    def prefill(self, row: int, tokens: NDArray[np.int64], past: int) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._run(tokens[None], row, np.array([past], np.int64))[0]
        return logits

    def _run(self, ids: NDArray[np.int64], row: int, past: NDArray[np.int64]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._layers.run(torch.tensor(ids), self._kv, row, past).cpu().numpy()
        return logits


class TorchRuntime:
    """Converts weights to the computation type, and keeps keys and values on its device."""

    def __init__(self, settings: TorchSettings) -> None:
        self._settings = settings
        self._device = parse_device(settings.device)
        self._dtype = parse_dtype(settings.dtype, self._device)
        torch.set_num_threads(settings.threads)

    @property
    def provider(self) -> str:
        return f"torch on {self._device}"

    @property
    def reserves(self) -> bool:
        return not is_lazy(self._device, self._dtype)

    def shape(self, manifest: ModelManifest) -> KvShape:
        return kv_shape(manifest, manifest.layers, self._dtype)

    def open(
        self, folder: Path, manifest: ModelManifest, settings: EngineSettings, *, rows: int, length: int
    ) -> OpenModel:
        layers = LlamaLayers(folder, manifest, device=self._settings.device, dtype=self._settings.dtype)
        kv = layers.cache(rows=rows, length=length)
        return OpenModel(
            session=TorchSession(layers, kv),
            kv=kv,
            prefix=PrefixCache(kv, block=settings.prefix_block, capacity_bytes=settings.prefix_cache_bytes),
        )

    def encoder(self, folder: Path) -> Encoder:
        raise InvalidRequest(
            f"{folder.name!r} is an embedding model; the torch runtime runs chat models only", param="runtime"
        )
