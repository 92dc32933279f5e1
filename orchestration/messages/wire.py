"""The base of every message that crosses the bus."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Wire(BaseModel):
    """Base of all messages: frozen, and unknown fields are ignored so that versions can differ."""

    model_config = ConfigDict(frozen=True)


def tag(value: str) -> Any:
    """The default of the field that names a member of a tagged union. Unlike other defaults it is written
    with `exclude_defaults` too, which leaves out only what does not depend on the other fields."""
    return Field(default_factory=lambda _: value)
