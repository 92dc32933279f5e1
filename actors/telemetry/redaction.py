"""Keeps prompts and secrets out of events: what may be said of an error, and text without secrets."""

from __future__ import annotations

from actors.telemetry.content import DEFAULT_PATTERNS, Redactor
from actors.telemetry.event_log import event_log
from orchestration.errors import (
    BackendFailed,
    CannotContinue,
    InternalError,
    InvalidRequest,
    OrchestraError,
    RateLimited,
    ServerBusy,
)

MAX_CHARACTERS = 16_384
_QUOTING = (BackendFailed, CannotContinue, InternalError, InvalidRequest, RateLimited, ServerBusy)
"""Errors whose text may be that of an upstream or of foreign code, or about a body: it may quote a prompt."""
_redactor = Redactor(DEFAULT_PATTERNS, MAX_CHARACTERS)


def without_secrets(text: str) -> str:
    """The text with passwords in URLs, keys and tokens replaced, and cut at `MAX_CHARACTERS`."""
    return _redactor.redact(text)


def error_text(error: OrchestraError) -> str:
    """What an event may say of an error: its text without secrets, or nothing where it may quote a prompt."""
    if isinstance(error, _QUOTING) and not event_log.content:
        return f"field {error.param}" if error.param else ""
    return without_secrets(error.message)
