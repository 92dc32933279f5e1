"""Finds the data files (`nats/` and others) in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


class DataFilesMissing(FileNotFoundError):
    """This copy of Orchestra lacks a folder that it needs: the installation is broken."""


def data_folder(name: str, *, package: Path = _PACKAGE) -> Path:
    """The folder `name` of the project's root, as a real path that other programs can read.

    A wheel carries it as `actors/data/<name>` (hatch's force-include). A checkout has it beside
    `pyproject.toml`; that file must exist, because in site-packages the folder `nats` beside
    `actors` is the NATS client's. Raises `DataFilesMissing`.
    """
    installed = package / "data" / name
    if installed.is_dir():
        return installed
    checkout = package.parent / name
    if checkout.is_dir() and (package.parent / "pyproject.toml").is_file():
        return checkout
    raise DataFilesMissing(
        f"the folder {name!r} is neither at {installed} (an installed wheel) nor at {checkout} with a "
        "pyproject.toml beside it (a checkout): this installation is incomplete, install orchestra-llm again"
    )
