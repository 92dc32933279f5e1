"""Reads what Python does not keep at run time: docstrings of attributes and calls with constant arguments."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

PACKAGES = ("actors", "orchestration")


@cache
def texts() -> dict[str, str]:
    """The source of the modules of Orchestra by dotted name, sorted."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        root = Path(next(iter(import_module(package).__path__)))
        for path in root.rglob("*.py"):
            parts = path.relative_to(root.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path.read_text(encoding="utf-8")
    return dict(sorted(found.items()))


@cache
def parsed(module: str) -> ast.Module:
    """The tree of a module; an empty one where it is not Orchestra's."""
    return ast.parse(texts().get(module, ""))


def attribute_docs(body: list[ast.stmt]) -> dict[str, str]:
    """The docstring below each assignment of a class or module, by the assigned name."""
    found: dict[str, str] = {}
    for statement, below in pairwise(body):
        if isinstance(statement, ast.AnnAssign):
            target: ast.expr = statement.target
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
        else:
            continue
        text = below.value if isinstance(below, ast.Expr) else None
        if isinstance(target, ast.Name) and isinstance(text, ast.Constant) and isinstance(text.value, str):
            found[target.id] = one_line(text.value)
    return found


def class_docs(of: type) -> dict[str, str]:
    """`attribute_docs` of a class and of its bases, the class itself first."""
    found: dict[str, str] = {}
    for each in reversed(of.__mro__):
        for node in parsed(each.__module__).body:
            if isinstance(node, ast.ClassDef) and node.name == each.__name__:
                found |= attribute_docs(node.body)
    return found


def fields_of(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo, str]]:
    """Name, field and docstring of each field of a JSON object. The fields of an object in it follow it, with
    dotted names; those of the class itself come before those of its bases."""
    docs = class_docs(model)
    own = [name for each in model.__mro__ for name in getattr(each, "__annotations__", {})]
    for name, field in sorted(model.model_fields.items(), key=lambda item: own.index(item[0])):
        shown = field.alias or name
        yield shown, field, docs.get(name, "")
        inner = _object(field.annotation)
        for below, its_field, text in fields_of(inner) if inner else ():
            yield f"{shown}.{below}", its_field, text


def _object(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, as itself or as one of a union; not that of a list."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    models = (each for each in options if isinstance(each, type) and issubclass(each, BaseModel))
    return next(models, None)


def matching(pattern: str) -> Iterator[str]:
    """The names of the modules whose source matches the regular expression."""
    return (name for name, text in texts().items() if re.search(pattern, text))


def modules_with(pattern: str) -> Iterator[ModuleType]:
    """Import the modules whose source matches the regular expression."""
    for name in matching(pattern):
        with suppress(ModuleNotFoundError):  # of an extra that is not installed
            yield import_module(name)


def type_name(annotation: Any) -> str:
    """The annotation in plain words, such as `integer` or `list`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return type_name(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return " or ".join(type_name(each) for each in get_args(annotation) if each is not type(None))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (tuple, list, set, frozenset):
        return "list"
    if origin is not None and issubclass(origin, Mapping):
        return "object"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{each.value}`" for each in annotation)
    words = {int: "integer", float: "number", bool: "true, false", str: "text", SecretStr: "text"}
    return words.get(annotation, getattr(annotation, "__name__", "").lower())


def one_line(text: str | None) -> str:
    """The text in one line, fit for a cell of a Markdown table."""
    return " ".join((text or "").split()).replace("|", "\\|")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; '' without rows."""
    if not rows:
        return ""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell or ' ' for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"
