"""The engine of a chat model. Continuous batching: generations join and leave the batch at each step."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from actors.engine.job import ChatJob
from actors.engine.runtime import KvRows, Lookahead, PrefixStore, Session
from actors.engine.schedule import allowance, next_to_prefill
from actors.engine.sequence import TokenSequence, sample
from actors.engine.settings import EngineSettings
from actors.engine.slots import SlotMap
from actors.engine.worker import EngineStats, Worker
from actors.models.tokenizer import Tokenizer
from orchestration.errors import OrchestraError
from orchestration.messages import FinishReason, TokenLogprob

MAX_SPARE_TOKENS = 1024
"""Maximum cached tokens of free rows whose memory is kept for the next generations."""


@dataclass(slots=True)
class Counters:
    """The counters of `EngineStats`; written by the engine's thread only."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefix_hits: int = 0
    completion_tokens: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineParts:
    """The parts of an engine."""

    session: Session
    """Computes the model's logits."""
    kv: KvRows
    """Keys and values of the running generations."""
    prefix: PrefixStore
    """The prefix cache."""
    tokenizer: Tokenizer
    end_tokens: frozenset[int]
    """Ids that end an answer."""
    kv_tokens: int
    """Maximum cached tokens of all running generations together."""
    lookahead: Lookahead | None = None
    """Checks proposed tokens; None: each step decodes one token."""


class Engine(Worker[ChatJob]):
    """The loop of one chat model.

    A step prefills some chunks of prompts, then decodes one token of every prefilled generation. One that is
    alone may check proposed tokens instead: each is sampled as decoding would, up to the first that differs.
    The other generations in the batch, the chunking of the prompt and the length of a proposal change logits
    by less than 0.01 (float32 sums in another order), so greedy text stays the same unless two tokens are
    that close.
    """

    def __init__(self, model: str, parts: EngineParts, settings: EngineSettings) -> None:
        super().__init__(model, places=settings.slots + settings.max_waiting, settings=settings)
        self._parts = parts
        self._settings = settings
        self._slots: SlotMap[TokenSequence] = SlotMap(settings.slots, self._move)
        self._waiting: deque[ChatJob] = deque()
        self._prefilling: list[TokenSequence] = []
        self._reserved = 0
        self._turn = 0
        self._counters = Counters()

    @property
    def stats(self) -> EngineStats:
        """Statistics, readable from any thread; the numbers may be a step apart."""
        kv_tokens = sum(sequence.position for sequence in self._slots.items())
        return EngineStats(
            model=self.model,
            running=len(self._slots),
            waiting=max(0, self._outstanding - len(self._slots)),
            kv_tokens=kv_tokens,
            cache_bytes=kv_tokens * self._parts.kv.shape.token_bytes + self._parts.prefix.held_bytes,
            kv_tokens_limit=self._parts.kv_tokens,
            failures=self.failures,
            healthy=self.healthy,
            **asdict(self._counters),
        )

    def close(self) -> None:
        super().close()
        self._slots.let_go()

    def busy(self) -> bool:
        return bool(self._waiting) or len(self._slots) > 0

    def accept(self, job: ChatJob) -> None:
        self._waiting.append(job)

    def rest(self) -> None:
        """Free the rows' memory, and the prefixes beyond `idle_prefix_bytes`."""
        self._parts.kv.fit(0, self._slots.free_rows())
        self._parts.prefix.shrink(self._settings.idle_prefix_bytes)
        super().rest()

    def abandon(self) -> list[ChatJob]:
        jobs = [sequence.job for sequence in self._slots.items()] + list(self._waiting)
        self._slots.clear()
        self._prefilling.clear()
        self._waiting.clear()
        self._reserved = 0
        self._parts.prefix.clear()
        return jobs

    def step(self) -> None:
        self._drop_cancelled()
        self._admit()
        spent = 0
        while self._prefilling:
            sequence = self._prefilling[next_to_prefill(self._prefilling, self._turn)]
            self._reuse(sequence)
            left = allowance(self._settings.prefill_budget, spent, sequence.unread) - spent
            if left <= 0:
                break
            self._turn += 1
            spent += self._prefill(sequence, min(left, self._settings.prefill_chunk))
        if self._slots.decoding and not self._looked_ahead():
            self._decode()

    def _drop_cancelled(self) -> None:
        for sequence in [sequence for sequence in self._slots.items() if sequence.job.queue.cancelled]:
            self._leave(sequence)
        if any(job.queue.cancelled for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if not job.queue.cancelled)

    def _admit(self) -> None:
        """Give slots to waiting generations in order of arrival while slots and memory last."""
        while self._waiting and not self._slots.full:
            if self._reserved + self._waiting[0].room > self._parts.kv_tokens and len(self._slots):
                return
            sequence = TokenSequence(self._waiting.popleft())
            self._parts.kv.claim(self._slots.take(sequence), sequence.job.room)
            self._reserved += sequence.job.room
            self._prefilling.append(sequence)
            self._counters.prompt_tokens += len(sequence.job.prompt)
        self._fit()

    def _prefill(self, sequence: TokenSequence, max_tokens: int) -> int:
        """Prefill one chunk of at most `max_tokens` tokens. Returns the number of tokens computed."""
        prompt, start = sequence.job.prompt, sequence.position
        tokens = prompt[start : start + max_tokens]
        logits = self._parts.session.prefill(self._slots.row_of(sequence), tokens, start)
        self._counters.steps += 1
        sequence.position += len(tokens)
        self._keep(sequence)
        if sequence.unread == 0:
            self._prefilling.remove(sequence)
            self._parts.prefix.touch(sequence.chain)
            self._slots.promote(sequence)
            self._fit()
            self._continue([sequence], logits[np.newaxis])
            self.outputs.flush()  # the first token must not wait for the others' step
        return len(tokens)

    def _reuse(self, sequence: TokenSequence) -> None:
        """Copy cached blocks of the prompt from the current position on, at most all but the last token."""
        prefix, prompt = self._parts.prefix, sequence.job.prompt
        before = sequence.cached
        while (at := sequence.position) == len(sequence.chain) * prefix.block and at + prefix.block < len(
            prompt
        ):
            tokens = prompt[at : at + prefix.block]
            if not prefix.load(sequence.chain, tokens, self._slots.row_of(sequence), at):
                break
            sequence.position += prefix.block
            sequence.cached += prefix.block
        self._counters.prefix_hits += before == 0 and sequence.cached > 0
        self._counters.cached_tokens += sequence.cached - before

    def _keep(self, sequence: TokenSequence) -> None:
        """Store the whole blocks that were read since the last stored one."""
        prefix, prompt = self._parts.prefix, sequence.job.prompt
        for start in range(
            len(sequence.chain) * prefix.block, sequence.position - prefix.block + 1, prefix.block
        ):
            tokens = prompt[start : start + prefix.block]
            if not prefix.store(sequence.chain, tokens, self._slots.row_of(sequence), start):
                return

    def _looked_ahead(self) -> bool:
        """Check the next tokens that a generation which is alone proposes. Returns False if it has none."""
        lookahead = self._parts.lookahead
        if lookahead is None or len(self._slots) > 1:
            return False
        sequence = self._slots[0]
        proposal = sequence.propose(lookahead.tokens)
        if not proposal:
            return False
        tokens = np.array([sequence.token, *proposal], np.int64)
        logits = lookahead.verify(0, tokens, sequence.position)
        self._counters.steps += 1
        for row, token in enumerate(tokens):
            if not self._slots.decoding or sequence.token != token:
                break  # complete, or another token than proposed
            sequence.position += 1
            self._continue([sequence], logits[row : row + 1])
        return True

    def _decode(self) -> None:
        count = self._slots.decoding
        sequences = [self._slots[at] for at in range(count)]
        tokens = np.fromiter((sequence.token for sequence in sequences), np.int64, count)
        lengths = np.fromiter((sequence.position for sequence in sequences), np.int32, count)
        logits = self._parts.session.decode(tokens, lengths)
        self._counters.steps += 1
        for sequence in sequences:
            sequence.position += 1
        self._continue(sequences, logits)

    def _continue(self, sequences: list[TokenSequence], logits: NDArray[np.float32]) -> None:
        """Sample and send the next token of each sequence; finished sequences leave."""
        choices = sample(sequences, logits, self._parts.tokenizer.decode_bytes)
        for sequence, choice in zip(sequences, choices, strict=True):
            try:
                if isinstance(choice, OrchestraError):
                    raise choice
                self._advance(sequence, *choice)
            except OrchestraError as error:
                self.outputs.post(sequence.job.queue, error)
                self._leave(sequence)

    def _advance(self, sequence: TokenSequence, token: int, logprob: TokenLogprob | None) -> None:
        rules = sequence.job.rules
        if token in self._parts.end_tokens or (rules is not None and token in rules.stops):
            self._complete(sequence, "stop")
            return
        piece, complete = sequence.append(token, self._parts.tokenizer.decode_bytes(token), logprob)
        self._counters.completion_tokens += 1
        if piece is not None:
            self.outputs.post(sequence.job.queue, piece)
        if complete:
            self._complete(sequence, "stop")
        elif sequence.produced >= sequence.job.max_tokens:
            self._complete(sequence, "length")

    def _complete(self, sequence: TokenSequence, reason: FinishReason) -> None:
        rest = sequence.text.flush()
        if rest is not None:
            self.outputs.post(sequence.job.queue, rest)
        self.outputs.post(sequence.job.queue, sequence.finish(reason))
        self._leave(sequence)

    def _leave(self, sequence: TokenSequence) -> None:
        self._slots.release(sequence)
        self._reserved -= sequence.job.room
        self._fit()
        if sequence in self._prefilling:
            self._prefilling.remove(sequence)

    def _move(self, source: int, target: int) -> None:
        """Copy a row of the cache; called by the slot map."""
        sequence = self._slots[source]
        self._parts.kv.move(source, target, sequence.position)
        self._parts.kv.claim(target, sequence.job.room)

    def _fit(self) -> None:
        """Free the memory of unused rows except for `MAX_SPARE_TOKENS`; call it when rows change."""
        limit = min(self._parts.kv_tokens, self._reserved + MAX_SPARE_TOKENS)
        self._parts.kv.fit(limit, self._slots.free_rows())
