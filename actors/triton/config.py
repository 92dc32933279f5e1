"""Parses and checks `config.pbtxt` with tritonclient's schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.installation.optional_imports import needs_extra
from actors.triton.errors import BadRepository

CONFIG = "config.pbtxt"


def parse(text: str, where: str) -> Any:
    """The `ModelConfig` in `text`. `where` names it in errors.

    Raises `BadRepository` with line and column of an unknown field or an invalid value, and `ExtraMissing`.
    """
    with needs_extra("triton", "the check of config.pbtxt"):
        from google.protobuf import text_format
        from tritonclient.grpc.model_config_pb2 import ModelConfig
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise BadRepository(
            f"{where} is not a valid configuration of a Triton model, line {error}", param="config"
        ) from error


def check_path(folder: Path) -> None:
    """Raises `BadRepository` for a path with an apostrophe: Triton's Python backend quotes it for a shell,
    and would wait forever for the model."""
    if "'" in str(folder.absolute()):
        raise BadRepository(
            f"Triton cannot start Python models below {str(folder)!r}, which has an apostrophe in its path: "
            "choose another folder",
            param="repository",
        )


def check_place(repository: Path) -> None:
    """Raise `BadRepository`, with the command that writes a repository, if the folder does not exist."""
    check_path(repository)
    if not repository.is_dir():
        raise BadRepository(
            f"there is no model repository {str(repository)!r}; write one: "
            f"orchestra triton repository {repository} --model smollm2-135m",
            param="repository",
        )


def check_repository(repository: Path) -> list[str]:
    """The names of the models of a repository, after a check of their configurations.

    Folders without config.pbtxt are left to Triton, which completes some models itself. Raises
    `BadRepository` for the first invalid configuration, for one with another name, and for a missing or empty
    repository.
    """
    check_place(repository)
    folders = sorted(path for path in repository.iterdir() if path.is_dir() and path.name[0] != ".")
    for folder in folders:
        file = folder / CONFIG
        if not file.is_file():
            continue
        config_name = parse(file.read_text(encoding="utf-8", errors="replace"), str(file)).name
        if config_name not in ("", folder.name):
            raise BadRepository(
                f"{file} has the name {config_name!r}, but its folder is {folder.name!r}", param="config"
            )
    if not folders:
        raise BadRepository(f"the model repository {str(repository)!r} holds no model", param="repository")
    return [folder.name for folder in folders]
