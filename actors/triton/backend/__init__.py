"""A backend for NVIDIA's Triton Inference Server."""

from actors.triton.backend.backend import TritonBackend
from actors.triton.backend.settings import TritonSettings

__all__ = ["TritonBackend", "TritonSettings"]
