"""Continues an answer on an upstream after another node began it, as one text for the reader.

Methods, in this order: the text so far as a prefill, if the server can continue an assistant's message; from
the beginning, if it generates the same text again; as the next turn after the text so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from actors.backends.base import KEEP_ALIVE, Output
from actors.backends.openai.settings import OpenAISettings
from orchestration.messages import Finish, TextDelta, TextGeneration

Prefill = Literal["no", "trailing_message", "continue_final_message"]
_OWNERS: dict[str, Prefill] = {
    "vllm": "continue_final_message",
    "sglang": "continue_final_message",
    "llamacpp": "trailing_message",
}


class ContinuationMethod(StrEnum):
    """`PREFILL` and `TURN` send the same messages, but only `PREFILL` has the fields that request a
    continuation; without them a server may begin a new answer."""

    PREFILL = "prefill"
    AGAIN = "again"
    TURN = "turn"


class TextMismatch(Exception):
    """The upstream generated another text than the one already sent."""


def detect_prefill(entry: Mapping[str, Any], settings: OpenAISettings) -> Prefill:
    """How a server continues a chat: from the settings, else from the model's `owned_by`."""
    if settings.continues != "auto":
        return settings.continues
    return _OWNERS.get(str(entry.get("owned_by", "")).lower(), "no")


def continuation_methods(generation: TextGeneration, prefill: Prefill) -> tuple[ContinuationMethod, ...]:
    """The methods to try, in order. A guide starts with every request, so only the same text fits it."""
    if generation.guide is not None or not generation.prefix.strip():
        return (ContinuationMethod.AGAIN,)
    if generation.kind == "completion":
        return (ContinuationMethod.PREFILL,)
    if prefill == "no" or (generation.offer is not None and generation.offer.choice != "auto"):
        return (ContinuationMethod.AGAIN, ContinuationMethod.TURN)
    return (ContinuationMethod.PREFILL, ContinuationMethod.AGAIN, ContinuationMethod.TURN)


def continuation_request(generation: TextGeneration, way: ContinuationMethod) -> TextGeneration:
    """The generation to send: with its prefix, or from the beginning."""
    if way is not ContinuationMethod.AGAIN:
        # Templates strip trailing spaces of a message, and some servers refuse them.
        continuation = generation.continuation
        if continuation is None or generation.kind == "completion":
            return generation
        stripped = continuation.model_copy(update={"text": continuation.text.rstrip()})
        return generation.model_copy(update={"continuation": stripped})
    return generation.model_copy(update={"continuation": None})


class ContinuationFilter:
    """Drops the text that was already sent from an upstream's output.

    After `AGAIN` all of the prefix must come, or it is a `TextMismatch`. Otherwise the prefix was sent
    without the spaces at its end: they may come again, and after a `TURN` the whole prefix may. Text that may
    be such a repetition is held back until that is known.
    """

    def __init__(self, generation: TextGeneration, way: ContinuationMethod) -> None:
        prefix = generation.prefix
        self._strict = way is ContinuationMethod.AGAIN and bool(prefix.strip())
        self._spaces = prefix[len(prefix.rstrip()) :] if generation.kind == "chat" else ""
        self._expected = [prefix] if way is not ContinuationMethod.PREFILL else []
        if self._spaces and not self._strict:
            self._expected.append(self._spaces)
        self._at = 0
        """Number of expected characters that have arrived."""
        self._tokens = 0

    def take(self, output: Output) -> Output:
        """`output` without the text that was already sent. Raises `TextMismatch`."""
        if isinstance(output, Finish):
            if self._strict and any(text[self._at :].strip() for text in self._expected):
                raise TextMismatch
            return output
        if not self._expected or not isinstance(output, TextDelta):
            return output
        if not output.text:  # reasoning before the text that was already sent
            return KEEP_ALIVE
        text, before = output.text, self._expected
        self._tokens += output.tokens
        going_on = [each for each in before if each.startswith(text, self._at)]
        if going_on:
            self._at += len(text)
            self._expected = going_on if any(len(each) > self._at for each in going_on) else []
            return KEEP_ALIVE
        ended = max((each for each in before if text.startswith(each[self._at :])), key=len, default=None)
        if ended is not None:
            self._expected = []
            rest = text[len(ended) - self._at :]
            return TextDelta(text=rest, tokens=round(output.tokens * len(rest) / len(text)))
        if self._strict:
            raise TextMismatch
        return self._released(text)

    def rest(self) -> TextDelta | None:
        """The text that is still held back at the end."""
        return None if self._strict or not self._expected or not self._at else self._released("")

    def _released(self, text: str) -> TextDelta:
        text = self._expected[0][: self._at] + text
        self._expected = []
        again = 0
        while again < min(len(text), len(self._spaces)) and text[again] == self._spaces[again]:
            again += 1
        return TextDelta(text=text[again:], tokens=self._tokens)
