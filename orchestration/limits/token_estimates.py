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
        call = _call(work)
        text = text_tokens(call)
        answer = answer_tokens(call, min(assumed_answer, max(1, most - text)))
        known, extra = text + answer, 0
        if isinstance(call, Run):
            extra = max(TEMPLATE_TOKENS, round(self._means.get(call.pattern, 0.0)) - known)
            if call.budget.tokens is not None:
                known, extra = min(known, call.budget.tokens), max(0, min(extra, call.budget.tokens - known))
        elif call.kind == "chat":
            extra = round(self._means.get(call.model, TEMPLATE_TOKENS))
        total = known if known > most else max(1, min(known + extra, most))
        return Estimate(max(1, text + (0 if isinstance(call, Run) else extra)), total)

    def learn(self, work: Generation | Run, usage: Usage) -> None:
        """Take what a request has taken."""
        call = _call(work)
        if not usage.prompt_tokens or (usage.estimated and not isinstance(call, Run)):
            return  # of a run, only what its stopped steps used is an estimate
        if isinstance(call, Run):
            self._take(call.pattern, usage.prompt_tokens + usage.completion_tokens, 0.0)
        elif call.kind == "chat":
            self._take(call.model, usage.prompt_tokens - text_tokens(call), TEMPLATE_TOKENS)

    def _take(self, name: str, value: float, unknown: float) -> None:
        before = self._means.pop(name, unknown or value)
        self._means[name] = before + WEIGHT * (value - before)
        if len(self._means) > MAX_NAMES:
            self._means.popitem(last=False)


def _call(work: Generation | Run) -> Generation | Run:
    """The one model call that a job of a real model carries, or the work itself."""
    return work.generation if isinstance(work, Run) and work.generation is not None else work


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
