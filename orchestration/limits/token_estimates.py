"""Estimates the tokens of a request, from the requests before it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from orchestration.messages import ChatGeneration, CompletionGeneration, Run, Usage, Work

BYTES_A_TOKEN = 4
"""Bytes per token of English text. The node's report replaces the estimate in the end."""
MESSAGE_TOKENS = 4
"""Tokens of the chat template per message."""
TEMPLATE_TOKENS = 32
"""Assumed tokens that a chat template adds to a conversation (a system prompt, the opening of the answer),
until the model's mean is known."""
WEIGHT = 0.2
"""Weight of the latest request in a mean."""
MAX_NAMES = 1_024
"""Models and patterns remembered; the least recently used is forgotten."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Numbers of tokens. `total` includes the longest answer that the request allows."""

    prompt: int
    total: int


class TokenEstimates:
    """Mean tokens of the chat template per model, and of a whole run per pattern."""

    def __init__(self) -> None:
        self._means: OrderedDict[str, float] = OrderedDict()

    def of(self, work: Work, assumed_answer: int, most: int) -> Estimate:
        """Estimate the tokens of `work`; its answer has `assumed_answer` if the caller does not limit it.

        `most` is the limit of one request. Parts that are only estimated do not exceed it, so that a small
        limit refuses no request that fits.
        """
        text = text_tokens(work)
        answer = answer_tokens(work, min(assumed_answer, max(1, most - text)))
        known, extra = text + answer, 0
        if isinstance(work, Run):
            extra = max(TEMPLATE_TOKENS, round(self._means.get(work.pattern, 0.0)) - known)
            if work.budget.tokens is not None:
                known, extra = min(known, work.budget.tokens), max(0, min(extra, work.budget.tokens - known))
        elif work.kind == "chat":
            extra = round(self._means.get(work.model, TEMPLATE_TOKENS))
        total = known if known > most else max(1, min(known + extra, most))
        return Estimate(max(1, text + (0 if isinstance(work, Run) else extra)), total)

    def learn(self, work: Work, usage: Usage) -> None:
        """Update the means with the tokens that a request has used."""
        if not usage.prompt_tokens or (usage.estimated and not isinstance(work, Run)):
            return  # in a run, only the usage of stopped steps is estimated
        if isinstance(work, Run):
            self._take(work.pattern, usage.prompt_tokens + usage.completion_tokens, 0.0)
        elif work.kind == "chat":
            self._take(work.model, usage.prompt_tokens - text_tokens(work), TEMPLATE_TOKENS)

    def _take(self, name: str, value: float, unknown: float) -> None:
        before = self._means.pop(name, unknown or value)
        self._means[name] = before + WEIGHT * (value - before)
        if len(self._means) > MAX_NAMES:
            self._means.popitem(last=False)


def text_tokens(work: Work) -> int:
    """The tokens of the caller's texts, estimated from their bytes, since they are not tokenised yet."""
    texts, ids = list(work.texts), 0
    if isinstance(work, ChatGeneration):
        texts.append(work.prefill)
    elif isinstance(work, CompletionGeneration):
        ids = len(work.prompt_ids)
    return ids + sum(len(text.encode()) // BYTES_A_TOKEN + MESSAGE_TOKENS for text in texts if text)


def answer_tokens(work: Work, assumed: int) -> int:
    """The maximum tokens of the answer; `assumed` if the request does not limit it."""
    if work.kind == "embedding":
        return 0
    return work.sampling.max_tokens or assumed
