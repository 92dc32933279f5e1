"""Maps an upstream's errors to those of `orchestration.errors`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from actors.backends.openai.backoff import wait_in_text
from actors.streams.characters import whole_characters
from orchestration.errors import (
    BackendFailed,
    ContextTooLong,
    InvalidGuide,
    InvalidRequest,
    OrchestraError,
    PayloadTooLarge,
    RateLimited,
    ServerBusy,
    Unavailable,
    UnknownModel,
)
from orchestration.messages import Generation

_MAX_TEXT = 300
_CONTEXT_SIGNS = ("context_length_exceeded", "exceed_context_size", "maximum context length", "context size")
OVERLOADED = 529
"""The status of Anthropic-like servers where others use 503."""
_WORDS = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "rate_limit": 429,
    "rate_limited": 429,
    "too_many_requests": 429,
    "insufficient_quota": 429,
    "resource_exhausted": 429,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "badrequesterror": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_denied": 403,
    "model_not_found": 404,
    "overloaded_error": OVERLOADED,
    "overloaded": OVERLOADED,
    "server_overloaded": OVERLOADED,
    "engine_overloaded": OVERLOADED,
}
_GUIDE_SIGNS = ("schema", "grammar", "response_format", "guided", "structured", "regex")


_SYSTEM = re.compile(
    r"(system|developer)['\"`]?\s*(role|message|prompt|instruction)"
    r"|\broles?\b[^.]{0,80}\b(system|developer)\b"
    r"|only\s+['\"`]?user['\"`]?,?\s+and\s+['\"`]?assistant",
    re.IGNORECASE,
)
_REFUSES = re.compile(
    r"(not|n't) (be )?(support|allow|enable|permit|accept|available)"
    r"|unsupported|unexpected|invalid|unknown|only|must|should be",
    re.IGNORECASE,
)
_ALTERNATE = re.compile(r"\broles?\b.{0,80}\balternat|alternat.{0,80}\broles?\b", re.IGNORECASE | re.DOTALL)


class UnsupportedRoles(InvalidRequest):
    """The model accepts no system message or, with `repeats`, no two messages of one role in a row."""

    repeats: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """An upstream, for messages. `api_key` is masked in its texts."""

    host: str
    api_key_env: str | None = None
    api_key: str | None = None

    def __repr__(self) -> str:
        return f"Upstream(host={self.host!r}, api_key_env={self.api_key_env!r}, api_key=***)"

    def shorten(self, text: str) -> str:
        """One line of at most 300 characters without the key."""
        if self.api_key:
            text = text.replace(self.api_key, "***")
        text = whole_characters(" ".join(text.split()))
        return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def response_error(
    upstream: Upstream,
    status: int,
    answer: bytes,
    *,
    generation: Generation | None = None,
    retry_after_s: float | None = None,
) -> OrchestraError:
    """The error for a response with HTTP `status`; `answer` is its body, or the part that was read."""
    detail = _parse(answer)
    text = upstream.shorten(_text(detail) or answer.decode("utf-8", "replace"))
    message = f"{upstream.host} answered {status}" + (f": {text}" if text else "")
    if status in (401, 403):
        where = (
            f"environment variable {upstream.api_key_env}"
            if upstream.api_key_env
            else "no key: api_key_env is not set"
        )
        return BackendFailed(
            f"{message} (key from {where})" if upstream.api_key_env else f"{message} ({where})"
        )
    if status == 429:
        return RateLimited(message, retry_after_s=retry_after_s or wait_in_text(text))
    if status == OVERLOADED or (status == 503 and retry_after_s is not None):
        return ServerBusy(message, retry_after_s=retry_after_s)
    if status == 503:
        return Unavailable(message)
    if status == 413:
        return PayloadTooLarge(message)
    if status == 404 and generation is not None and _about_model(detail, text):
        return UnknownModel(f"{message} (for model {generation.model!r})", param="model")
    if status in (400, 422, 500):  # some servers answer 500 if a template raised
        refused = _roles_refused(message, _text(detail) or answer.decode("utf-8", "replace"))
        if refused is not None:
            return refused
    if status in (400, 422):
        return _bad_request(message, detail, generation)
    return BackendFailed(message)


def event_error(upstream: Upstream, error: Any, generation: Generation | None = None) -> OrchestraError:
    """The error for an error object in a stream. Its `code`, `status` or `type` gives the HTTP status, as a
    number or as a term of OpenAI, Anthropic or Google."""
    codes = [_field(error, name) for name in ("code", "status", "status_code", "type")]
    status = next((status for code in codes if (status := _status(code))), 502)
    answer = json.dumps({"error": error}).encode()
    return response_error(
        upstream, status, answer, generation=generation, retry_after_s=_seconds(_field(error, "retry_after"))
    )


def _status(code: Any) -> int:
    """The HTTP status for a code, 0 if unknown."""
    if isinstance(code, str):
        code = int(code) if code.isdecimal() and len(code) == 3 else _WORDS.get(code.lower(), 0)
    return code if isinstance(code, int) and 400 <= code <= 599 else 0


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else None


def _roles_refused(message: str, text: str) -> UnsupportedRoles | None:
    """The error if the text is about message roles, as servers and chat templates word it."""
    repeats = _ALTERNATE.search(text) is not None or "optional system message" in text.lower()
    if not repeats and not (_SYSTEM.search(text) and _REFUSES.search(text)):
        return None
    error = UnsupportedRoles(message, param="messages")
    error.repeats = repeats
    return error


def _bad_request(message: str, detail: Any, generation: Generation | None) -> OrchestraError:
    signs = f"{_field(detail, 'code')} {_field(detail, 'type')} {message}".lower()
    if any(sign in signs for sign in _CONTEXT_SIGNS):
        tokens, limit = _field(detail, "n_prompt_tokens"), _field(detail, "n_ctx")
        if generation is not None and isinstance(tokens, int) and isinstance(limit, int):
            return ContextTooLong.of(generation.model, tokens, limit)
        return ContextTooLong(message, param="messages")
    if (
        generation is not None
        and generation.guide is not None
        and any(sign in signs for sign in _GUIDE_SIGNS)
    ):
        return InvalidGuide(message, param="guide")
    param = _field(detail, "param")
    return InvalidRequest(message, param=param if isinstance(param, str) else None)


def _about_model(detail: Any, text: str) -> bool:
    return _field(detail, "code") == "model_not_found" or "model" in text.lower()


def _parse(answer: bytes) -> Any:
    """The error object of a response: `{"error": …}` (OpenAI), `{"detail": …}` (FastAPI), or None."""
    try:
        body = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    if isinstance(body, list) and len(body) == 1:  # Google's
        body = body[0]
    if not isinstance(body, dict):
        return body
    return body.get("error") or body.get("detail") or body


def _field(detail: Any, name: str) -> Any:
    return detail.get(name) if isinstance(detail, dict) else None


def _text(detail: Any) -> str:
    if isinstance(detail, str):
        return detail
    message = _field(detail, "message")
    if isinstance(message, str):
        return message
    return "" if detail is None else json.dumps(detail, ensure_ascii=False)
