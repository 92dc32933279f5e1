"""The reference page of settings: name, default, range or choices, and what it is."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from actors.cli.reference.source import class_docs, one_line, table, type_name
from actors.config.setting_names import is_hot

HEAD = """# Settings

Every setting has one name. In `orchestra.toml` it is a key of its section, in the environment a variable,
and `orchestra config` shows which value is in force and where it comes from:

    [gateway]                                    # orchestra.toml
    max_in_flight = 256

    ORCHESTRA_GATEWAY__MAX_IN_FLIGHT=256         # environment, stronger than the file

Options of a command are stronger than both. A setting marked *hot* can also be changed for the whole cluster
while its processes run, with `orchestra config set`; that is stronger than a file, while the environment and
the command line of a process are stronger still. Every process follows within a second.

Names end in their unit: `_s` is seconds, `_mb` megabytes (10^6
bytes). Without a unit a number is a count or a share. A `list` is a TOML array such as `["a", "b"]`, and a
`table` is TOML's: `{a = "b"}`. `NAME` stands for a name that you choose.
"""


def page() -> str:
    """The page as Markdown."""
    from actors.settings import Settings

    sections = _sections(Settings)
    return HEAD + "".join(
        f"\n## {title}\n\n{intro}{table(('setting', 'default', 'allowed', 'what it is'), rows)}"
        for title, intro, rows in sections
        if rows
    )


def _sections(root: type[BaseModel]) -> list[tuple[str, str, list[tuple[str, ...]]]]:
    backends = _backends()
    top = [(name, field) for name, field in root.model_fields.items() if _model(field) is None]
    docs = class_docs(root)
    found = [("Top level", "", [_row(name, field, docs) for name, field in top if name not in backends])]
    for name, field in root.model_fields.items():
        model = _model(field) or backends.get(name)
        if model is not None:
            found.append(
                (
                    name,
                    f"{one_line(model.__doc__)}\n\n" if model.__doc__ else "",
                    _rows(name, model, is_hot(field)),
                )
            )
    return found


def _rows(prefix: str, model: type[BaseModel], hot: bool) -> list[tuple[str, ...]]:
    """A row for each setting; with `hot` all of them are."""
    docs = class_docs(model)
    rows: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        inner, many, field_hot = _model(field), _model_of_values(field), hot or is_hot(field)
        if inner is not None:
            rows += _rows(f"{prefix}.{name}", inner, field_hot)
        elif many is not None:
            rows += _rows(f"{prefix}.{name}.NAME", many, field_hot)
        else:
            rows.append(_row(f"{prefix}.{name}", field, docs, field_hot))
    return rows


def _row(name: str, field: FieldInfo, docs: Mapping[str, str], hot: bool = False) -> tuple[str, ...]:
    text = docs.get(name.rpartition(".")[2]) or one_line(field.description)
    return f"`{name}`", _default(field), _allowed(field) + (", hot" if hot else ""), text


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None:
        return "not set"
    if isinstance(value, SecretStr):
        return "secret"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, tuple | frozenset | set):
        value = list(value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int) and value >= 10_000:
        return f"`{value:_}`"
    return f"`{one_line(str(value))}`" if not isinstance(value, str) else f'`"{one_line(value)}"`'


def _allowed(field: FieldInfo) -> str:
    words: list[str] = []
    for each in field.metadata:
        if isinstance(each, annotated_types.Ge):
            words.append(f"≥ {each.ge}")
        elif isinstance(each, annotated_types.Gt):
            words.append(f"> {each.gt}")
        elif isinstance(each, annotated_types.Le):
            words.append(f"≤ {each.le}")
        elif isinstance(each, annotated_types.Lt):
            words.append(f"< {each.lt}")
        elif isinstance(each, annotated_types.MinLen):
            words.append(f"length ≥ {each.min_length}")
        elif isinstance(each, annotated_types.MaxLen):
            words.append(f"length ≤ {each.max_length}")
        elif (pattern := getattr(each, "pattern", None)) is not None:
            words.append("`" + one_line(str(getattr(pattern, "pattern", pattern))) + "`")
    return ", ".join(words) or _choices(field.annotation) or _type(field.annotation)


def _type(annotation: Any) -> str:
    """The type in TOML's words."""
    return type_name(annotation).replace("object", "table")


def _choices(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{each.value}`" for each in annotation)
    if get_origin(annotation) in (Union, UnionType):
        return ", ".join(filter(None, (_choices(each) for each in get_args(annotation))))
    return ""


def _model(field: FieldInfo) -> type[BaseModel] | None:
    of = field.annotation
    return of if isinstance(of, type) and issubclass(of, BaseModel) else None


def _model_of_values(field: FieldInfo) -> type[BaseModel] | None:
    origin, arguments = get_origin(field.annotation), get_args(field.annotation)
    if (
        origin is None
        or not isinstance(origin, type)
        or not issubclass(origin, Mapping)
        or len(arguments) != 2
    ):
        return None
    of = arguments[1]
    return of if isinstance(of, type) and issubclass(of, BaseModel) else None


def _backends() -> dict[str, type[BaseModel]]:
    """The sections that a backend reads by itself, by name."""
    from actors.backends.echo import EchoSettings
    from actors.backends.openai import OpenAISettings
    from actors.backends.replay import ReplaySettings
    from actors.engine.settings import OnnxSettings, OpenVinoSettings
    from actors.triton.backend.settings import TritonSettings

    return {
        "onnx": OnnxSettings,
        "openvino": OpenVinoSettings,
        "openai": OpenAISettings,
        "echo": EchoSettings,
        "replay": ReplaySettings,
        "triton": TritonSettings,
    }
