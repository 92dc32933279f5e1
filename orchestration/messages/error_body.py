"""An error as it crosses the bus; `orchestration.errors` makes it from an exception, and back."""

from __future__ import annotations

from orchestration.messages.wire import Wire


class ErrorBody(Wire):
    """An error on the wire. `param` names the field of the request at fault, if one is."""

    code: str
    message: str
    status: int = 500
    retryable: bool = False
    param: str | None = None
    retry_after_s: float | None = None
