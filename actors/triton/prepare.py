"""Prepares a tritonserver: its backend folder, its libraries and the Python of its models.

The wheel nvidia-pytriton 0.7.0 has the Python backend in parts: a stub for each version of Python, and the
libraries in another folder. The backend folder made here has links to them, so it follows a new wheel.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from actors.installation.optional_imports import ExtraMissing
from actors.triton.errors import Incompatible, TritonFolderUnusable
from actors.triton.locate import Installation

STUB = "triton_python_backend_stub"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A server that is ready to start."""

    binary: Path
    """Path of the program."""
    backends: Path | None
    """Folder of the backends; None: the server has its own."""
    environment: Mapping[str, str]
    """Variables that override those of this process."""


def prepare(installation: Installation, folder: Path) -> Prepared:
    """Prepare `installation`, with its backends under `folder`. Fast; call it at each start.

    Raises `Incompatible` when this Python cannot run models, `ExtraMissing`, `TritonFolderUnusable`.
    """
    check_numpy(_version("numpy"))
    # The stub takes its packages from the first `python3` on PATH; it must be this environment's.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    # Otherwise models spin against each other: on two cores a step took twice as long.
    common = {"PATH": path, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    if installation.wheel is None:
        return Prepared(binary=installation.binary, backends=None, environment=common)
    libraries = [str(_wheel_libraries(installation.wheel))]
    if (python := _python_library()) is not None:
        libraries.append(str(python))
    if before := os.environ.get("LD_LIBRARY_PATH"):
        libraries.append(before)
    return Prepared(
        binary=installation.binary,
        backends=_link_backends(installation.wheel, folder / "backends"),
        environment=common | {"LD_LIBRARY_PATH": os.pathsep.join(libraries)},
    )


def check_numpy(version: str | None) -> None:
    """Raises `Incompatible` for a numpy that Triton's Python backend cannot load."""
    if version is None:
        raise ExtraMissing.of("triton", "Triton's Python backend", "numpy")
    if int(version.partition(".")[0]) >= 2:
        raise Incompatible(
            f"numpy {version} is installed, and Triton's Python backend crashes with numpy 2 (its models "
            "report 'Stub process is not healthy'): pip install 'numpy<2'"
        )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _wheel_libraries(wheel: Path) -> Path:
    return wheel.parents[1] / "nvidia_pytriton.libs"


def _python_library() -> Path | None:
    """The folder of this Python's shared library; None if the loader finds it.

    Raises `Incompatible` for a Python that was built without one.
    """
    name = sysconfig.get_config_var("INSTSONAME") or ""
    if ".so" not in name:
        raise Incompatible(
            f"{sys.executable} was built without its shared library, which Triton's Python backend loads: "
            "use a Python built with --enable-shared (Debian's, pyenv's with PYTHON_CONFIGURE_OPTS)"
        )
    usual = Path(str(sysconfig.get_config_var("LIBDIR")))
    return usual if (usual / name).exists() else None


def _link_backends(wheel: Path, folder: Path) -> Path:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / STUB
    if not stub.is_file():
        known = sorted(path.name for path in stub.parents[1].glob("*"))
        raise Incompatible(
            f"the wheel nvidia-pytriton has no stub for Python {version}, only for {', '.join(known)}"
        )
    targets = {path.name: path for path in (wheel / "backends" / "python").iterdir() if path.is_file()}
    targets[STUB] = stub
    python = folder / "python"
    try:
        python.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, target in targets.items():
            _link(python / name, target)
    except OSError as error:
        raise TritonFolderUnusable(
            f"cannot make Triton's backend folder {python}: {error.strerror or error}; "
            "choose another place with --data"
        ) from error
    return folder


def _link(link: Path, target: Path) -> None:
    """Make `link` point to `target` atomically: another process may do the same."""
    if link.is_symlink() and link.readlink() == target:
        return
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
