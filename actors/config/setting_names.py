"""The names of settings: parsed, looked up in their models, and whether they are hot.

A name is dotted: `gateway.limits.queue_depth`. The names of a table's entries may have dots themselves; then
they are found by what follows them, or written in quotes: `gateway.callers."a.key".key`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, lru_cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from orchestration.errors import InvalidRequest
from orchestration.hot import HotMark

MAX_NEAR = 6
"""Maximum names in an error about a name that is not hot or not known."""
MAX_NAME = 512
MAX_FOUND = 16_384
"""Maximum names that are remembered with their settings: a change looks up all names of the document."""
_PART = re.compile(r'"([^"]+)"|([^."]+)')
_NAME = re.compile(r'(?:"[^"]+"|[^."]+)(?:\.(?:"[^"]+"|[^."]+))*')
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingName:
    """One setting, or one entry of a table of settings."""

    path: Path
    kind: Any
    """Its type; None below a table of anything."""
    hot: bool
    is_entry: bool
    """Whether it names an entry of a table, which can be removed."""

    def __str__(self) -> str:
        return dotted(self.path)

    @property
    def secret(self) -> bool:
        return _is(self.kind, SecretStr)

    @property
    def is_text(self) -> bool:
        """Whether its values are texts, which need no decoding."""
        return _is(self.kind, str) or self.secret

    @property
    def is_table(self) -> bool:
        """Whether it holds further settings."""
        return _model(self.kind) is not None or _values_of(self.kind) is not None


def find_setting(model: type[BaseModel], name: str) -> SettingName:
    """The setting called `name`. Raises `InvalidRequest` with the names that are near."""
    return _found(model, name)


@lru_cache(maxsize=MAX_FOUND)
def _found(model: type[BaseModel], name: str) -> SettingName:
    if len(name) > MAX_NAME or _NAME.fullmatch(name) is None:
        raise InvalidRequest(f"{name[:80]!r} is not the name of a setting", param=name[:80])
    parts = [(quoted or plain, bool(quoted)) for quoted, plain in _PART.findall(name)]
    found = _walk(model, parts)
    if found is None:
        near = get_close_matches(name, all_names(model), MAX_NEAR, 0.6)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise InvalidRequest(f"unknown setting {name}{hint}", param=name)
    return found


def require_hot(model: type[BaseModel], name: str) -> SettingName:
    """The setting called `name`. Raises `InvalidRequest` if it cannot be changed while processes run."""
    found = find_setting(model, name)
    if found.hot:
        return found
    variable = "ORCHESTRA_" + name.upper().replace(".", "__")
    near = _near_hot(model, name)
    raise InvalidRequest(
        f"setting {name} cannot be changed while processes run: set it in orchestra.toml or as ${variable}, "
        f"and restart them" + (f"; near it can be changed: {', '.join(near)}" if near else ""),
        param=name,
    )


def is_hot(field: FieldInfo) -> bool:
    """Whether the field, a setting or a section, is marked as hot."""
    return any(isinstance(each, HotMark) for each in field.metadata)


@cache
def all_names(model: type[BaseModel]) -> tuple[str, ...]:
    """The names of all settings; `NAME` stands for the entries of a table."""
    return tuple(name for name, _ in _names(model, "", False))


@cache
def hot_names(model: type[BaseModel]) -> tuple[str, ...]:
    """The names of the hot settings; `NAME` stands for the entries of a table."""
    return tuple(name for name, hot in _names(model, "", False) if hot)


def dotted(path: Path) -> str:
    """The name of a path, with quotes where a part has a dot."""
    return ".".join(f'"{part}"' if "." in part else part for part in path)


def related_paths(one: Path, other: Path) -> bool:
    """Whether one path is the other, or leads to it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def value_at(root: Any, path: Path) -> Any:
    """The value at a path of models and tables; None if there is none."""
    for part in path:
        root = root.get(part) if isinstance(root, Mapping) else getattr(root, part, None)
    return root


def leaves_of(setting: SettingName, value: Any, model: type[BaseModel]) -> Iterator[tuple[SettingName, Any]]:
    """The single settings in `value`, which may be a whole section or table. Raises `InvalidRequest`."""
    if not isinstance(value, Mapping) or not (setting.is_table or setting.kind is None):
        yield setting, value
        return
    if not value:
        raise InvalidRequest(f"setting {setting}: nothing is in the table", param=str(setting))
    for key, inner in value.items():
        name = f'{setting}."{key}"' if _model(setting.kind) is None else f"{setting}.{key}"
        yield from leaves_of(find_setting(model, name), inner, model)


def _walk(model: type[BaseModel], parts: list[tuple[str, bool]]) -> SettingName | None:
    kind: Any = model
    path: Path = ()
    hot = is_entry = False
    while parts:
        section = _model(kind)
        if section is not None:
            field = section.model_fields.get(parts[0][0])
            if field is None:
                return None
            hot = hot or is_hot(field)
            kind, path, parts, is_entry = field.annotation, (*path, parts[0][0]), parts[1:], False
            continue
        if kind is None:
            key, parts = parts[0][0], parts[1:]
        else:
            inner = _values_of(kind)
            if inner is None:
                return None
            key, parts = _key(inner[0], parts)
            kind = inner[0]
        path, is_entry = (*path, key), True
    return SettingName(path=path, kind=kind, hot=hot, is_entry=is_entry)


def _key(values: Any, parts: list[tuple[str, bool]]) -> tuple[str, list[tuple[str, bool]]]:
    """The key of a table at the beginning of `parts`, and the parts below it."""
    if parts[0][1] or values is None or _values_of(values) is not None:
        return parts[0][0], parts[1:]
    section = _model(values)
    for index in range(1, len(parts)):
        if section is not None and parts[index][0] in section.model_fields:
            return ".".join(part for part, _ in parts[:index]), parts[index:]
    return ".".join(part for part, _ in parts), []


def _names(model: type[BaseModel], prefix: str, hot: bool) -> Iterator[tuple[str, bool]]:
    for name, field in model.model_fields.items():
        both = hot or is_hot(field)
        inner, table = _model(field.annotation), _values_of(field.annotation)
        if inner is not None:
            yield from _names(inner, f"{prefix}{name}.", both)
        elif table is not None and (values := _model(table[0])) is not None:
            yield from _names(values, f"{prefix}{name}.NAME.", both)
        else:
            yield f"{prefix}{name}" + (".NAME" if table is not None else ""), both


def _near_hot(model: type[BaseModel], name: str) -> list[str]:
    """The hot settings whose names are near, those of the same section first."""
    names = hot_names(model)
    section = name.partition(".")[0] + "."
    close = get_close_matches(name, names, MAX_NEAR, 0.5)
    same = [each for each in names if each.startswith(section) and each not in close]
    return [*close, *same][:MAX_NEAR]


def _members(kind: Any) -> tuple[Any, ...]:
    """The members of a union, without their annotations."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return tuple(each for inner in get_args(kind) for each in _members(inner))
    return (kind,)


def _is(kind: Any, wanted: type) -> bool:
    return any(isinstance(each, type) and issubclass(each, wanted) for each in _members(kind))


def _model(kind: Any) -> type[BaseModel] | None:
    return next((e for e in _members(kind) if isinstance(e, type) and issubclass(e, BaseModel)), None)


def _values_of(kind: Any) -> tuple[Any] | None:
    """The type of a table's values, in a tuple; None if `kind` is no table."""
    for each in _members(kind):
        if get_origin(each) in (dict, Mapping):
            values = get_args(each)[1]
            return (None if values is Any else values,)
    return None
