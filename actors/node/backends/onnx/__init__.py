"""The ONNX backend: our own continuous-batching engine on onnxruntime."""

from actors.node.backends.onnx.backend import OnnxBackend
from actors.node.backends.onnx.settings import OnnxSettings
from actors.node.backends.onnx.stats import EngineStats

__all__ = ["EngineStats", "OnnxBackend", "OnnxSettings"]
