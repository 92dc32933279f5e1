"""The ONNX backend: models of this machine in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actors.engine.backend import EngineBackend
from actors.engine.kv import KvCache, KvShape
from actors.engine.prefix import PrefixCache
from actors.engine.runtime import Lookahead, OpenModel
from actors.engine.sessions.onnx import MAX_VERIFIED, OnnxSession
from actors.engine.sessions.onnx_encoder import OnnxEncoder
from actors.engine.settings import EngineSettings, OnnxSettings
from actors.models.manifest import ModelManifest

_LOOKAHEAD_TOKENS = MAX_VERIFIED - 1
"""A call of 8 tokens takes 2.4 times as long as one of a single token, one of 2 takes 1.8 times as long."""


class OnnxRuntime:
    """Keeps weights in the layout of the file, and keys and values in lazily resident host memory."""

    reserves = False

    def __init__(self, settings: OnnxSettings) -> None:
        self._settings = settings

    @property
    def provider(self) -> str:
        return self._settings.providers[0]

    def shape(self, manifest: ModelManifest) -> KvShape:
        return KvShape(layers=manifest.layers, kv_heads=manifest.kv_heads, head_dim=manifest.head_dim)

    def open(
        self, folder: Path, manifest: ModelManifest, settings: EngineSettings, *, rows: int, length: int
    ) -> OpenModel:
        kv = KvCache(self.shape(manifest), rows=rows, length=length)
        session = OnnxSession(folder, manifest, self._settings, kv)
        on_cpu = self.provider == "CPUExecutionProvider"
        return OpenModel(
            session=session,
            kv=kv,
            lookahead=Lookahead(_LOOKAHEAD_TOKENS, session.verify) if on_cpu else None,
            prefix=PrefixCache(kv, block=settings.prefix_block, capacity_bytes=settings.prefix_cache_bytes),
        )

    def encoder(self, folder: Path) -> OnnxEncoder:
        return OnnxEncoder(folder, self._settings)


class OnnxBackend(EngineBackend):
    """Serves model folders by an engine on onnxruntime."""

    name = "onnx"

    def __init__(self, folders: Sequence[Path], settings: OnnxSettings | None = None) -> None:
        settings = settings or OnnxSettings()
        super().__init__(folders, settings, OnnxRuntime(settings))
