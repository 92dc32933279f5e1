"""Parses the events of an upstream into the outputs of a generation."""

from __future__ import annotations

import json
from typing import Any

from actors.backends.openai.errors import Upstream, event_error
from actors.backends.openai.fields import (
    first_text,
    parse_content,
    parse_finish_reason,
    parse_logprobs,
    parse_usage,
)
from actors.backends.openai.token_count import TokenCounter, TokenRatio
from actors.backends.openai.tool_calls import MAX_CHARACTERS, ToolCallAssembler
from actors.streams.characters import half_at_end, whole_characters
from orchestration.errors import BackendFailed
from orchestration.messages import (
    Finish,
    FinishReason,
    TextDelta,
    TextGeneration,
    Usage,
)
from orchestration.token_length import likely_prompt

_SNIPPET = 80
_FIRST = (None, 0, "0", "")
_DECODE = json.JSONDecoder().raw_decode
"""`json.loads` without encoding detection, which takes 2 of its 5 µs per event."""


class CompletionReader:
    """Reads the events of one chat or completion.

    `take` gives a `TextDelta` for every event that carries text, and keeps the finish reason and the usage
    that other events carry. `started` says whether any piece came yet. `rate` is that of the model.
    """

    __slots__ = (
        "_calls",
        "_count",
        "_deltas",
        "_generation",
        "_half",
        "_odd",
        "_reason",
        "_refusal",
        "_refused",
        "_thinks",
        "_upstream",
        "_usage",
        "started",
    )

    def __init__(self, upstream: Upstream, generation: TextGeneration, rate: TokenRatio) -> None:
        self._upstream = upstream
        self._generation = generation
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._count = TokenCounter(rate)
        self._calls = ToolCallAssembler()
        self._refusal: list[str] = []
        self._refused = 0
        self._deltas = False
        """Whether a `delta` has arrived; a whole `message` after it only repeats the text."""
        self._thinks = False
        """Whether any reasoning was shown."""
        self._half = ""
        """The first half of a character that a server cut in two with JSON's escapes."""
        self._odd = b""
        """The last event without an answer; quoted in the error if no answer follows."""
        self.started = False

    @property
    def ended(self) -> bool:
        """Whether the finish reason has arrived, so that the answer is complete."""
        return self._reason is not None

    def take(self, data: bytes) -> TextDelta | None:
        """The text of an event, if any. Raises `BackendFailed` if it is invalid, or the error that it
        contains."""
        try:
            text = data.decode(errors="replace").lstrip("\ufeff").strip()  # as the standard of streams has it
            event, end = _DECODE(text)
            if end != len(text):
                raise ValueError("something follows the JSON")
        except (ValueError, RecursionError) as error:
            if self.ended:
                return None
            raise self._malformed("an event that is not JSON", data) from error
        if isinstance(event, list) and len(event) == 1:  # Google's errors come so
            event = event[0]
        if not isinstance(event, dict):
            raise self._malformed("an event that is not a JSON object", data)
        failed = event if event.get("object") == "error" else event.get("error")
        if failed and not self.ended:
            raise event_error(self._upstream, failed, self._generation)
        reported = 0
        if event.get("usage"):
            self._usage = parse_usage(event["usage"])
            reported = self._usage.completion_tokens
        choices = event.get("choices")
        if not choices:  # the usage, or the keep-alive of some servers
            if "usage" not in event:
                self._odd = data
            return None
        try:
            # only one answer was requested
            mine = next((choice for choice in choices if choice.get("index") in _FIRST), None)
            self._odd = b""
            return None if mine is None else self._choice(mine, reported)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise self._malformed("a choice that cannot be read", data) from error

    def finish(self, *, done: bool) -> Finish:
        """The finish. `done`: the stream ended with its end marker.

        Raises `BackendFailed` if the stream ended before its answer did.
        """
        reason = self._reason
        if reason is None:
            if not done:
                raise self._unfinished(f"cut the stream after {self._count.total} tokens")
            if not self.started:
                raise self._unfinished("ended the stream without an answer")
            reason = "stop"
        usage = self._usage or Usage(prompt_tokens=likely_prompt(self._generation), estimated=True)
        if usage.completion_tokens:
            if not self._calls:
                self._count.learn(usage.completion_tokens - (0 if self._thinks else usage.reasoning_tokens))
        elif self._count.total or self._usage is None:
            usage = usage.model_copy(update={"completion_tokens": self._count.total, "estimated": True})
        prefix_tokens = self._generation.prefix_tokens
        if prefix_tokens:  # the upstream counted them as part of the prompt
            prompt_tokens = usage.prompt_tokens
            usage = usage.model_copy(
                update={
                    "prompt_tokens": max(0, prompt_tokens - prefix_tokens),
                    "completion_tokens": usage.completion_tokens + prefix_tokens,
                }
            )
        calls = self._calls.whole(cut=reason in ("length", "content_filter"))
        if reason in ("stop", "tool_calls"):  # some servers report stop for calls
            reason = "tool_calls" if calls else "stop"
        return Finish(
            reason=reason, usage=usage, calls=calls, refusal=whole_characters("".join(self._refusal))
        )

    def _choice(self, choice: dict[str, Any], reported: int) -> TextDelta | None:
        """`reported`: the tokens of the answer so far, if the event has them."""
        if choice.get("error"):
            raise event_error(self._upstream, choice["error"], self._generation)
        if choice.get("finish_reason"):
            reason = parse_finish_reason(self._upstream, choice["finish_reason"])
            if self._reason not in ("length", "content_filter"):  # a later stop does not complete the answer
                self._reason = reason
        delta = self._delta(choice)
        text, reasoning = parse_content(delta.get("content") or choice.get("text") or "")
        text = self._joined(text)
        reasoning = whole_characters(reasoning or first_text(delta, "reasoning_content", "reasoning"))
        self._thinks = self._thinks or bool(reasoning)
        refusal = first_text(delta, "refusal")
        if refusal:
            self._refuse(refusal)
        logprobs = choice.get("logprobs")
        tokens = parse_logprobs(logprobs) if logprobs else None
        called = self._called(delta)
        if not (text or reasoning or refusal or tokens or called):
            return None
        count = self._count.add(text + reasoning + refusal, exact=len(tokens or ()), reported=reported)
        self.started = True
        if called and not text and not reasoning:  # not part of the text that another node may continue
            return TextDelta(text="", tokens=0)
        return TextDelta(text=text, tokens=count, logprobs=tokens or None, reasoning=reasoning)

    def _delta(self, choice: dict[str, Any]) -> dict[str, Any]:
        """The part of the answer in a choice. Some servers repeat the whole message at the end."""
        delta, message = choice.get("delta"), choice.get("message")
        if delta:
            self._deltas = True
            return dict(delta)
        if message:
            return {} if self._deltas else dict(message)
        return choice

    def _joined(self, text: str) -> str:
        """The held back text and `text` in whole characters; half a character at the end is held back."""
        if not self._half and text.isascii():
            return text
        text = self._half + text
        self._half = half_at_end(text)
        return whole_characters(text.removesuffix(self._half))

    def _called(self, delta: dict[str, Any]) -> bool:
        """Add deltas of tool calls; ignored if no tools were offered."""
        deltas, old = delta.get("tool_calls"), delta.get("function_call")
        if not deltas and old:  # the legacy field: one call without an id
            deltas = [{"function": old}]
        if not deltas or self._generation.kind != "chat" or self._generation.offer is None:
            return False
        self._calls.take(deltas)
        return True

    def _refuse(self, text: str) -> None:
        self._refusal.append(text)
        self._refused += len(text)
        if self._refused > MAX_CHARACTERS:
            raise ValueError(f"a refusal of more than {MAX_CHARACTERS} characters")

    def _unfinished(self, what: str) -> BackendFailed:
        if not self._odd:
            return BackendFailed(f"{self._upstream.host} {what}")
        event = self._upstream.shorten(self._odd.decode("utf-8", "replace"))
        return BackendFailed(f"{self._upstream.host} {what}; it said {event}")

    def _malformed(self, what: str, data: bytes) -> BackendFailed:
        snippet = self._upstream.shorten(data[:_SNIPPET].decode("utf-8", "replace"))
        return BackendFailed(f"{self._upstream.host} sent {what}: {snippet}")
