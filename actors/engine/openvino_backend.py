"""The OpenVINO backend: chat models of this machine in OpenVINO, embedding models in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actors.engine.backend import EngineBackend
from actors.engine.kv import KvShape
from actors.engine.paged import PagedKv
from actors.engine.prefix import PrefixCache
from actors.engine.runtime import Lookahead, OpenModel
from actors.engine.sessions.onnx_encoder import OnnxEncoder
from actors.engine.sessions.openvino import BLOCK, OpenVinoSession, compile_llama
from actors.engine.settings import EngineSettings, OnnxSettings, OpenVinoSettings
from actors.models.manifest import ModelManifest

_LOOKAHEAD_TOKENS = 3
"""A call of 4 tokens takes 1.1 times as long as one of a single token, one of 5 takes 1.6 times as long. A
change of the number costs 0.3 more."""


class OpenVinoRuntime:
    """Keeps weights in the layout of the file, and keys and values in blocks of lazily resident memory."""

    reserves = False
    provider = "OpenVINO on CPU"

    def __init__(self, settings: OpenVinoSettings) -> None:
        self._settings = settings

    def shape(self, manifest: ModelManifest) -> KvShape:
        return KvShape(layers=manifest.layers, kv_heads=manifest.kv_heads, head_dim=manifest.head_dim)

    def open(
        self, folder: Path, manifest: ModelManifest, settings: EngineSettings, *, rows: int, length: int
    ) -> OpenModel:
        shape = self.shape(manifest)
        # A row has at most one block that is not full.
        blocks = min(settings.kv_cache_bytes // shape.token_bytes, rows * length) // BLOCK + rows
        prefixes = settings.prefix_cache_bytes // (BLOCK * shape.token_bytes)
        kv = PagedKv(shape, rows=rows, blocks=blocks + prefixes, block=BLOCK)
        session = OpenVinoSession(compile_llama(folder, manifest, self._settings), kv)
        exact = self._settings.activations == "float32"
        session.warm_up(length - 2)  # a row is longer than the context by two
        return OpenModel(
            session=session,
            kv=kv,
            # In 8 bits, logits depend on how many tokens a call has.
            lookahead=Lookahead(_LOOKAHEAD_TOKENS, session.verify) if exact else None,
            prefix=PrefixCache(kv, block=BLOCK, capacity_bytes=settings.prefix_cache_bytes),
        )

    def encoder(self, folder: Path) -> OnnxEncoder:
        return OnnxEncoder(folder, OnnxSettings(threads=self._settings.threads))


class OpenVinoBackend(EngineBackend):
    """Serves model folders by an engine on OpenVINO."""

    name = "openvino"

    def __init__(self, folders: Sequence[Path], settings: OpenVinoSettings | None = None) -> None:
        settings = settings or OpenVinoSettings()
        super().__init__(folders, settings, OpenVinoRuntime(settings))
