"""NVIDIA's Triton beside a node: found, prepared, started, kept running, never left behind."""

from actors.triton.errors import (
    BadRepository,
    Incompatible,
    TritonError,
    TritonFolderUnusable,
    TritonPortInUse,
    WrongVersion,
)
from actors.triton.server import TritonServer
from actors.triton.settings import TritonServerSettings

__all__ = [
    "BadRepository",
    "Incompatible",
    "TritonError",
    "TritonFolderUnusable",
    "TritonPortInUse",
    "TritonServer",
    "TritonServerSettings",
    "WrongVersion",
]
