"""Base of every message that crosses the bus: the class, tags of unions, and the body of errors."""

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


class ErrorBody(Wire):
    """An error as it crosses the bus; `orchestration.errors` makes it from an exception, and back."""

    code: str
    """Code of the error, as in errors.md."""
    message: str
    """Text for people: what failed, the limit, and what to do."""
    status: int = 500
    """HTTP status."""
    retryable: bool = False
    """Whether the same request may succeed later."""
    param: str | None = None
    """Field of the request that caused the error, if there is one."""
    retry_after_s: float | None = None
    """Time to wait before a retry, if it is known."""
