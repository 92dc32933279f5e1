"""Merges the sources of settings: a TOML file, the environment, and the command line.

`orchestra.toml` and the environment use the same names: `[gateway] http = "…"` is
`ORCHESTRA_GATEWAY__HTTP`. The environment overrides the file, and the command line overrides both.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from orchestration.errors import InvalidRequest
from orchestration.validation import first_problem

CONFIG_VARIABLE = "ORCHESTRA_CONFIG"
PREFIX = "ORCHESTRA_"
ENVIRONMENT = "environment"
COMMAND_LINE = "command line"


def config_file(explicit: Path | None = None) -> Path | None:
    """The settings file: `explicit`, `$ORCHESTRA_CONFIG`, ./orchestra.toml or
    ~/.config/orchestra/orchestra.toml, whichever comes first.

    Raises `InvalidRequest` if `explicit` or `$ORCHESTRA_CONFIG` does not exist.
    """
    path = explicit or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if path is not None:
        if not path.is_file():
            raise InvalidRequest(f"the settings file {path} does not exist")
        return path
    usual = (Path("orchestra.toml"), Path("~/.config/orchestra/orchestra.toml").expanduser())
    return next((path for path in usual if path.is_file()), None)


def merged_layers(
    overrides: Mapping[str, Any], file: Path | None, sections: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, str]]:
    """All values, nested by section, and the source of each (dotted name to source).

    `overrides` are the values of the command line. Raises `InvalidRequest` for a section that is not in
    `sections`, and for a file that cannot be read.
    """
    path = config_file(file)
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (ENVIRONMENT, _environment(sections)),
        (COMMAND_LINE, overrides),
    ]
    if path is not None:
        layers.insert(0, (str(path), _read(path, sections)))
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source, values in layers:
        for name in _merge(merged, values):
            variable = PREFIX + name.upper().replace(".", "__")
            origins[name] = f"${variable}" if source == ENVIRONMENT else source
    return merged, origins


def settings_error(
    error: ValidationError, kind: Any, origins: Mapping[str, str] | None = None, prefix: str = ""
) -> InvalidRequest:
    """Pydantic's first error about settings of type `kind`, as an `InvalidRequest`.

    It names the setting (below `prefix`) and its source, and for an unknown name the known ones.
    """
    problem = first_problem(error)
    place = problem.path
    name = ".".join((prefix, *place) if prefix else place)
    related = (known for known in origins or {} if name.startswith(known) or known.startswith(f"{name}."))
    source = next(((origins or {})[known] for known in related), "")
    where = f" (from {source})" if source else ""
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    message = problem.message
    if problem.type in ("extra_forbidden", "unexpected_keyword_argument"):
        message = _unknown(place[-1], _names_at(kind, place[:-1]))
    elif problem.type == "model_type":
        message = f"a section, not a value; known in it: {', '.join(sorted(_names_at(kind, place)))}"
    return InvalidRequest(f"setting {name}{where}: {message}{more}", param=name)


def _read(path: Path, sections: tuple[str, ...]) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read {path}: {error}") from error
    for name in values:
        if name not in sections:
            raise InvalidRequest(f"setting {name} (from {path}): {_unknown(name, sections)}", param=name)
    return values


def _environment(sections: tuple[str, ...]) -> dict[str, Any]:
    """`ORCHESTRA_A__B=text` as `{"a": {"b": "text"}}`. A JSON array or object is read as such."""
    values: dict[str, Any] = {}
    for variable, text in os.environ.items():
        if not variable.upper().startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        *outer, last = variable[len(PREFIX) :].lower().split("__")
        section = (outer or [last])[0]
        if section not in sections:
            raise InvalidRequest(f"${variable} sets nothing: {_unknown(section, sections)}", param=section)
        place = values
        for name in outer:
            inner = place.get(name)
            place[name] = place = inner if isinstance(inner, dict) else {}
        place[last] = _value(text)
    return values


def _value(text: str) -> Any:
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except ValueError:  # such as the IPv6 address [::1]:8080
            return text
    return text


def _merge(into: dict[str, Any], values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Merge `values` into `into`, where they win. Returns the dotted names of the values that were set."""
    names: list[str] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = into.get(key)
            inner = dict(inner) if isinstance(inner, Mapping) else {}
            names += _merge(inner, value, f"{prefix}{key}.")
            into[key] = inner
        else:
            into[key] = value
            names.append(prefix + key)
    return names


def _unknown(name: str, known: tuple[str, ...]) -> str:
    """The text about a name that no setting has."""
    close = get_close_matches(name.lower(), known, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown name; {hint}known here: {', '.join(sorted(known))}" if known else "unknown name"


def _names_at(kind: Any, place: Sequence[str]) -> tuple[str, ...]:
    """The names of the settings below `place` in a model; none if its type has no fixed names."""
    for part in place:
        model = _model_in(kind)
        if model is not None:
            field = model.model_fields.get(part)
            kind = field.annotation if field is not None else None
        elif get_origin(kind) in (dict, Mapping):
            kind = get_args(kind)[1]
        else:
            return ()
    model = _model_in(kind)
    return tuple(model.model_fields) if model is not None else ()


def _model_in(kind: Any) -> type[BaseModel] | None:
    """`kind` itself, or the model among the members of a union."""
    candidates: Iterator[Any] = iter(get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,))
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)
