"""The handlers of an actor class, found by their annotations."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from typing import get_type_hints


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """One handler of an actor class: its method's name, the type of its message, and whether it streams."""

    method: str
    message: type
    streams: bool


@cache
def handlers(kind: type) -> dict[type, HandlerSpec]:
    """The handlers of a class by the type of their message: its methods `on_…`.

    Raises TypeError for a handler without exactly one annotated message, or for two handlers of one type.
    """
    found: dict[type, HandlerSpec] = {}
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("on_"):
            continue
        parameters = list(inspect.signature(method).parameters)
        message = get_type_hints(method).get(parameters[1]) if len(parameters) == 2 else None
        if not isinstance(message, type):
            raise TypeError(f"{kind.__name__}.{name} must take one message with a class as its annotation")
        if message in found:
            raise TypeError(f"{kind.__name__} handles {message.__name__} twice")
        streams = inspect.isasyncgenfunction(method)
        if not streams and not inspect.iscoroutinefunction(method):
            raise TypeError(f"{kind.__name__}.{name} must be a coroutine or an async generator")
        found[message] = HandlerSpec(name, message, streams)
    return found
