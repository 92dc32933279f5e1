"""How many tokens a request will take, learnt from those before it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from orchestration.messages import Generation, Run, Usage

BYTES_A_TOKEN = 4
"""Of English text. What counts in the end is what the node reports."""
MESSAGE_TOKENS = 4
"""The chat template around each message."""
TEMPLATE_TOKENS = 32
"""What a chat template adds to a conversation (a system prompt of its own, the opening of the answer), until
the model's own share is known."""
WEIGHT = 0.2
"""Of the latest request in a mean."""
MAX_NAMES = 1_024
"""Models and patterns remembered; the least recently used is forgotten."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """`prompt` and `total` in tokens; the total holds the longest answer that is allowed."""

    prompt: int
    total: int


class TokenEstimates:
    """Means by model of what the template adds, and by pattern of what a whole run takes."""

    def __init__(self) -> None:
        self._means: OrderedDict[str, float] = OrderedDict()

    def of(self, work: Generation | Run, assumed_answer: int, most: int) -> Estimate:
        """What `work` will take, with `assumed_answer` where the caller does not limit its answer.

        `most` is what one request can take: what is only estimated takes no more than that, so that a small
        limit refuses nothing that would have fitted.
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

    def learn(self, work: Generation | Run, usage: Usage) -> None:
        """Take what a request has taken."""
        if not usage.prompt_tokens or (usage.estimated and not isinstance(work, Run)):
            return  # of a run, only what its stopped steps used is an estimate
        if isinstance(work, Run):
            self._take(work.pattern, usage.prompt_tokens + usage.completion_tokens, 0.0)
        elif work.kind == "chat":
            self._take(work.model, usage.prompt_tokens - text_tokens(work), TEMPLATE_TOKENS)

    def _take(self, name: str, value: float, unknown: float) -> None:
        before = self._means.pop(name, unknown or value)
        self._means[name] = before + WEIGHT * (value - before)
        if len(self._means) > MAX_NAMES:
            self._means.popitem(last=False)


def text_tokens(work: Generation | Run) -> int:
    """The tokens of what the caller sent, estimated by its bytes: nobody has tokenised it yet."""
    texts, ids = [message.content for message in work.messages], 0
    if isinstance(work, Generation):
        texts += [*work.inputs, work.prompt, work.prefill]
        ids = len(work.prompt_ids)
    return ids + sum(len(text.encode()) // BYTES_A_TOKEN + MESSAGE_TOKENS for text in texts if text)


def answer_tokens(work: Generation | Run, assumed: int) -> int:
    """The most that the answer can take, `assumed` where that was not said."""
    if isinstance(work, Generation) and work.kind == "embedding":
        return 0
    return work.sampling.max_tokens or assumed
