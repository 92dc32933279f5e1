"""Keeps prompts and secrets out of events: what may be said of an error, and text without secrets."""

from __future__ import annotations

import re

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

_SECRETS = re.compile(
    r"(?P<url>\b[a-z][a-z0-9+.-]*://)[^\s/@]*:[^\s/@]*@"
    r"|(?P<header>\b(?:bearer|basic|token|apikey|api[_-]key|password|passwd|secret|authorization)\b"
    r"[\"']?\s*[:=]?\s*[\"']?)(?!bearer\b|basic\b)[^\s\"',;)}\]]{4,}"
    r"|\bsk-[A-Za-z0-9_-]{6,}",
    re.IGNORECASE,
)
MASK = "********"
_QUOTING = (BackendFailed, CannotContinue, InternalError, InvalidRequest, RateLimited, ServerBusy)
"""Errors whose text may be that of an upstream or of foreign code, or about a body: it may quote a prompt."""


def without_secrets(text: str) -> str:
    """The text with passwords in URLs, keys and tokens masked."""
    return _SECRETS.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    if match["url"]:
        return f"{match['url']}{MASK}@"
    return f"{match['header'] or ''}{MASK}"


def error_text(error: OrchestraError) -> str:
    """What an event may say of an error: its text without secrets, or nothing where it may quote a prompt."""
    if isinstance(error, _QUOTING) and not event_log.content:
        return f"field {error.param}" if error.param else ""
    return without_secrets(error.message)
