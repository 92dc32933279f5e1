"""The ONNX backend: models of this machine in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actors.engine.backend import EngineBackend
from actors.engine.sessions.onnx_runtime import OnnxRuntime
from actors.engine.settings import OnnxSettings


class OnnxBackend(EngineBackend):
    """Serves model folders by an engine on onnxruntime."""

    name = "onnx"

    def __init__(self, folders: Sequence[Path], settings: OnnxSettings | None = None) -> None:
        settings = settings or OnnxSettings()
        super().__init__(folders, settings, OnnxRuntime(settings))
