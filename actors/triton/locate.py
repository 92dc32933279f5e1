"""Finds tritonserver: on PATH (NVIDIA's container), else in the wheel nvidia-pytriton."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from actors.installation.optional_imports import ExtraMissing, install_command

WHEEL = "pytriton"
"""The package of the wheel nvidia-pytriton; it is looked up, never imported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A tritonserver. `wheel` is the folder `pytriton/tritonserver` of the wheel, whose parts `prepare`
    combines; None for a complete installation."""

    binary: Path
    """Path of the program tritonserver."""
    wheel: Path | None = None


def find_server(search_path: str | None = None, package: str = WHEEL) -> Installation:
    """The tritonserver of this machine. `search_path` is PATH unless given. Raises `ExtraMissing`."""
    found = shutil.which("tritonserver", path=search_path)
    if found is not None:
        return Installation(binary=Path(found))
    spec = importlib.util.find_spec(package)
    for place in spec.submodule_search_locations or () if spec else ():
        wheel = Path(place) / "tritonserver"
        binary = wheel / "bin" / "tritonserver"
        if binary.is_file():
            return Installation(binary=binary, wheel=wheel)
    raise ExtraMissing(
        f"no tritonserver on PATH, and no wheel nvidia-pytriton in this Python: {install_command('triton')}"
    )
