"""An error as it crosses the bus; `orchestration.errors` makes it from an exception, and back."""

from __future__ import annotations

from orchestration.messages.wire import Wire


class ErrorBody(Wire):
    """An error on the wire. `param` names the field of the request at fault, if one is."""

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
