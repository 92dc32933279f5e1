"""`config.pbtxt`, read with the schema that tritonclient ships: a wrong field or type is found here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.installation.optional_imports import needs_extra
from actors.triton.errors import BadRepository

CONFIG = "config.pbtxt"


def parse(text: str, where: str) -> Any:
    """The `ModelConfig` that `text` is. `where` names it in the error.

    Raises `BadRepository` with line and column of an unknown field or a value of a wrong type, and
    `ExtraMissing`.
    """
    with needs_extra("triton", "the check of config.pbtxt"):
        from google.protobuf import text_format
        from tritonclient.grpc.model_config_pb2 import ModelConfig
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise BadRepository(
            f"{where} is no configuration of a Triton model, line {error}", param="config"
        ) from error


def check_path(folder: Path) -> None:
    """Raises `BadRepository` for a path in which Triton's Python backend cannot start models: it puts it in
    quotes for a shell, and then waits for ever."""
    if "'" in str(folder.absolute()):
        raise BadRepository(
            f"Triton cannot start Python models below {str(folder)!r}, which has an apostrophe in its path: "
            "choose another folder",
            param="repository",
        )


def check_place(repository: Path) -> None:
    """Raises `BadRepository`, with the way to write one, where there is no repository."""
    check_path(repository)
    if not repository.is_dir():
        raise BadRepository(
            f"there is no model repository {str(repository)!r}; write one: "
            f"orchestra triton repository {repository} --model smollm2-135m",
            param="repository",
        )


def check_repository(repository: Path) -> list[str]:
    """The names of the models of a repository, each with a configuration that can be read.

    A folder without config.pbtxt is left to Triton, which completes some models by itself. Raises
    `BadRepository` for the first that is wrong, for a model whose configuration says another name, for a
    repository without a model, and for one that is not there.
    """
    check_place(repository)
    folders = sorted(path for path in repository.iterdir() if path.is_dir() and path.name[0] != ".")
    for folder in folders:
        file = folder / CONFIG
        if not file.is_file():
            continue
        said = parse(file.read_text(encoding="utf-8", errors="replace"), str(file)).name
        if said not in ("", folder.name):
            raise BadRepository(
                f"{file} says name {said!r}, and its folder is {folder.name!r}", param="config"
            )
    if not folders:
        raise BadRepository(f"the model repository {str(repository)!r} holds no model", param="repository")
    return [folder.name for folder in folders]
