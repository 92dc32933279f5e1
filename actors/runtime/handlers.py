"""The handlers of an actor class, found by their annotations."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import get_args, get_type_hints


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """One handler of an actor class: its method's name, the type of its message, and whether it streams."""

    method: str
    message: type
    streams: bool


@cache
def handlers(kind: type) -> dict[type, HandlerSpec]:
    """The handlers of a class by the type of their message: its methods `on_…`. A handler whose annotation is
    a union takes the messages of each of its classes.

    Raises TypeError for a handler without exactly one annotated message, or for two handlers of one type.
    """
    found: dict[type, HandlerSpec] = {}
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("on_"):
            continue
        parameters = list(inspect.signature(method).parameters)
        message = get_type_hints(method).get(parameters[1]) if len(parameters) == 2 else None
        types = get_args(message) if isinstance(message, UnionType) else (message,)
        if not all(isinstance(each, type) for each in types):
            raise TypeError(f"{kind.__name__}.{name} must take one message with classes as its annotation")
        streams = inspect.isasyncgenfunction(method)
        if not streams and not inspect.iscoroutinefunction(method):
            raise TypeError(f"{kind.__name__}.{name} must be a coroutine or an async generator")
        for each in types:
            if each in found:
                raise TypeError(f"{kind.__name__} handles {each.__name__} twice")
            found[each] = HandlerSpec(name, each, streams)
    return found
