"""A running generation inside the engine, and the sampling of its next token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from actors.engine.job import ChatJob
from actors.engine.lookup import PromptLookup
from actors.engine.prefix import Chain
from actors.engine.sampling import (
    Penalties,
    draw,
    greedy,
    log_probabilities,
    top_ids,
)
from actors.engine.text import TextStream
from orchestration.errors import OrchestraError
from orchestration.messages import Finish, FinishReason, TextDelta, TokenLogprob, TopLogprob, Usage

DecodeBytes = Callable[[int], bytes]


class TokenSequence:
    """The state of one generation between two steps."""

    __slots__ = (
        "_generator",
        "_lookup",
        "_penalties",
        "cached",
        "chain",
        "job",
        "position",
        "produced",
        "text",
        "token",
    )

    def __init__(self, job: ChatJob) -> None:
        self.job = job
        self.position = 0
        """Number of tokens whose keys and values are in the cache."""
        self.cached = 0
        self.produced = 0
        self.token = 0
        """The next input token, once the prompt has been read."""
        self.text = TextStream(job.stops, job.prefix)
        self.chain = Chain()
        self._lookup = PromptLookup(job.prompt, job.max_tokens)
        prompt_length = len(job.prompt) - job.prefix_ids
        self._penalties = Penalties(job.plan, job.prompt[:prompt_length]) if job.plan.penalised else None
        if self._penalties is not None:
            for written in job.prompt[prompt_length:].tolist():
                self._penalties.add(written)
        seed = None if job.seed is None else job.seed % 2**64
        self._generator = None if job.plan.greedy else np.random.default_rng(seed)

    @property
    def unread(self) -> int:
        """Number of prompt tokens that are not in the cache yet."""
        return len(self.job.prompt) - self.position

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(self.job.prompt) - self.job.prefix_ids,
            completion_tokens=self.job.prefix_tokens + self.produced,
            cached_tokens=self.cached,
        )

    def propose(self, count: int) -> list[int]:
        """At most `count` tokens that may follow `token`, before the last that the caller wants."""
        return self._lookup.propose(min(count, self.job.max_tokens - self.produced - 1))

    def shape(self, logits: NDArray[np.float32]) -> None:
        """Apply penalties, the caller's rules and the guide to `logits` [vocabulary] in place."""
        if self._penalties is not None:
            self._penalties.apply(logits)
        if self.job.rules is not None:
            self.job.rules.apply(logits, self.job.prefix_tokens + self.produced)
        if self.job.guide is not None:
            self.job.guide.mask(logits)

    def draw(self, logits: NDArray[np.float32]) -> int | None:
        """A token by this sequence's own random numbers; None if it decodes greedily."""
        if self._generator is None:
            return None
        return draw(logits, self.job.plan, self._generator)

    def append(self, token: int, data: bytes, logprob: TokenLogprob | None) -> tuple[TextDelta | None, bool]:
        """Append `token`. Returns the text that can be sent, and whether the text is complete ("stop")."""
        self.token = token
        self.produced += 1
        self._lookup.append(token)
        if self._penalties is not None:
            self._penalties.add(token)
        piece = self.text.push(data, logprob)
        complete = self.job.guide is not None and self.job.guide.advance(token)
        return piece, complete or self.text.stopped

    def finish(self, reason: FinishReason) -> Finish:
        return Finish(reason=reason, usage=self.usage)


SampledToken = tuple[int, TokenLogprob | None]


def sample(
    sequences: Sequence[TokenSequence], logits: NDArray[np.float32], decode: DecodeBytes
) -> list[SampledToken | OrchestraError]:
    """The next token of each sequence from `logits` [sequences, vocabulary], which are modified.

    A sequence whose guide fails gets the error in its place. Log probabilities are the model's own, before
    penalties, guide and temperature.
    """
    tables: dict[int, NDArray[np.float32]] = {}
    errors: dict[int, OrchestraError] = {}
    for at, sequence in enumerate(sequences):
        if sequence.job.plan.logprobs is not None:
            tables[at] = log_probabilities(logits[at])
        try:
            sequence.shape(logits[at])
        except OrchestraError as error:
            errors[at] = error
    tokens = greedy(logits).tolist()
    sampled: list[SampledToken | OrchestraError] = []
    for at, sequence in enumerate(sequences):
        if at in errors:
            sampled.append(errors[at])
            continue
        drawn = sequence.draw(logits[at])
        token = tokens[at] if drawn is None else drawn
        table = tables.get(at)
        sampled.append(
            (
                token,
                None
                if table is None
                else _token_logprob(token, table, sequence.job.plan.logprobs or 0, decode),
            )
        )
    return sampled


def _token_logprob(token: int, table: NDArray[np.float32], count: int, decode: DecodeBytes) -> TokenLogprob:
    def name(data: bytes) -> str:
        return data.decode("utf-8", "replace")

    def finite(value: float) -> float:
        return max(float(value), -9999.0)  # JSON has no infinity; OpenAI's minimum

    top = [(decode(int(at)), finite(table[at])) for at in top_ids(table, count)]
    data = decode(token)
    return TokenLogprob(
        token=name(data),
        logprob=finite(table[token]),
        bytes=tuple(data),
        top_logprobs=tuple(
            TopLogprob(token=name(each), logprob=value, bytes=tuple(each)) for each, value in top
        ),
    )
