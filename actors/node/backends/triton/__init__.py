"""A backend that hands generations to NVIDIA's Triton Inference Server."""

from actors.node.backends.triton.backend import TritonBackend
from actors.node.backends.triton.settings import TritonSettings

__all__ = ["TritonBackend", "TritonSettings"]
