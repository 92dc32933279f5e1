"""Parses the fields of an upstream's answers, in the forms that different servers give them."""

from __future__ import annotations

import base64
import json
import logging
import math
import struct
from typing import Any

from actors.backends.openai.errors import Upstream
from actors.streams.characters import whole_characters
from orchestration.errors import BackendFailed
from orchestration.messages import (
    FinishReason,
    TokenLogprob,
    TopLogprob,
    Usage,
)

_LOG = logging.getLogger(__name__)
UNLIKELY = -9999.0
"""OpenAI's log probability of an almost impossible token."""
_FILTERED = [
    "content_filter",
    "content_filtered",
    "safety",
    "sensitive",
    "refusal",
    "recitation",
    "blocked",
    "blocklist",
    "prohibited_content",
    "spii",
    "guardrail_intervened",
]
_REASONS: dict[str, FinishReason] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "model_length"), "length"),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), "tool_calls"),
    **dict.fromkeys(_FILTERED, "content_filter"),
}
"""Finish reasons of OpenAI and of other providers."""
_FAILED = frozenset(
    ("error", "abort", "aborted", "cancelled", "insufficient_system_resource", "network_error")
)


def parse_usage(usage: Any) -> Usage:
    """The usage object of the API; missing or invalid counts are 0."""

    def count(of: Any, name: str) -> int:
        value = of.get(name) if isinstance(of, dict) else None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if isinstance(value, int) and value > 0 else 0

    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    written = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    return Usage(
        prompt_tokens=count(usage, "prompt_tokens"),
        completion_tokens=count(usage, "completion_tokens"),
        cached_tokens=count(details, "cached_tokens"),
        reasoning_tokens=count(written, "reasoning_tokens"),
    )


def parse_finish_reason(upstream: Upstream, reported: Any) -> FinishReason:
    """The finish reason in OpenAI's terms; unknown ones are taken for stop.

    Raises `BackendFailed` for a reason that means a failure before the end of the answer.
    """
    word = str(reported).lower()
    if word in _FAILED:
        raise BackendFailed(f"{upstream.host} ended the answer before its end: finish_reason {word}")
    known = _REASONS.get(word)
    if known is None:
        _LOG.info("%s gave the finish_reason %.40r, taken for stop", upstream.host, reported)
    return known or "stop"


def parse_content(content: Any) -> tuple[str, str]:
    """Text and reasoning of a content, a string or (with some servers) a list of parts.

    Raises `TypeError` for anything else.
    """
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, list):
        raise TypeError("text that is not a string")
    text, reasoning = "", ""
    for part in content:
        if part.get("type") == "thinking":
            thought = part.get("thinking") or ""
            reasoning += thought if isinstance(thought, str) else parse_content(thought)[0]
        else:
            text += part.get("text") or ""
    return text, reasoning


def first_text(delta: dict[str, Any], *names: str) -> str:
    return next((value for name in names if (value := delta.get(name)) and isinstance(value, str)), "")


def parse_logprobs(logprobs: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    """Log probabilities in the format of chats, or in the legacy one of completions (parallel lists)."""
    content = logprobs.get("content")
    if content is not None:
        return tuple(
            TokenLogprob(
                token=whole_characters(entry["token"]),
                logprob=_logprob(entry["logprob"]),
                bytes=tuple(entry.get("bytes") or ()),
                top_logprobs=tuple(_top(top) for top in entry.get("top_logprobs") or ()),
            )
            for entry in content
        )
    tokens = logprobs.get("tokens") or []
    values = logprobs.get("token_logprobs") or []
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        TokenLogprob(
            token=whole_characters(token),
            logprob=0.0 if value is None else _logprob(value),  # the first token of a prompt has none
            top_logprobs=tuple(
                TopLogprob(token=whole_characters(name), logprob=_logprob(p))
                for name, p in (top or {}).items()
            ),
        )
        for token, value, top in zip(tokens, values, tops, strict=True)
    )


def _top(top: dict[str, Any]) -> TopLogprob:
    bytes_ = tuple(top.get("bytes") or ())
    return TopLogprob(token=whole_characters(top["token"]), logprob=_logprob(top["logprob"]), bytes=bytes_)


def _logprob(value: Any) -> float:
    """A finite number, as JSON requires."""
    return UNLIKELY if value is None or not math.isfinite(value) else value


def parse_embeddings(upstream: Upstream, answer: bytes, expected: int) -> tuple[tuple[str, ...], Usage]:
    """The vectors of an `/embeddings` response in the order of the inputs, each base64 of float32."""
    try:
        body = json.loads(answer)
        entries = sorted(body["data"], key=lambda entry: int(entry["index"]))
        if [entry["index"] for entry in entries] != list(range(expected)):
            raise ValueError(f"{len(entries)} vectors for {expected} inputs")
        vectors = tuple(_vector(entry["embedding"]) for entry in entries)
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise BackendFailed(f"{upstream.host} sent embeddings that cannot be read: {error}") from error
    return vectors, parse_usage(body.get("usage"))


def _vector(embedding: str | list[float]) -> str:
    """The vector as base64; servers may ignore `encoding_format` and send numbers."""
    if isinstance(embedding, str):
        size = len(base64.b64decode(embedding, validate=True))
        if not size or size % 4:
            raise ValueError(f"a vector of {size} bytes")
        return embedding
    if not embedding:
        raise ValueError("an empty vector")
    return base64.b64encode(struct.pack(f"<{len(embedding)}f", *embedding)).decode()
