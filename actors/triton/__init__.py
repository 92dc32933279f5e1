"""NVIDIA's Triton beside a node: found, prepared, started, kept running, never left behind."""

from actors.triton.errors import (
    BadRepository,
    DataFolderUnusable,
    ExtraMissing,
    PortBusy,
    TritonError,
    Unfit,
    WrongVersion,
)
from actors.triton.server import TritonServer
from actors.triton.settings import TritonServerSettings

__all__ = [
    "BadRepository",
    "DataFolderUnusable",
    "ExtraMissing",
    "PortBusy",
    "TritonError",
    "TritonServer",
    "TritonServerSettings",
    "Unfit",
    "WrongVersion",
]
