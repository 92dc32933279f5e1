"""The ONNX backend: our own continuous-batching engine on onnxruntime."""

from actors.node.backends.onnx.backend import OnnxBackend
from actors.node.engine.settings import OnnxSettings

__all__ = ["OnnxBackend", "OnnxSettings"]
