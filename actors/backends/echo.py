"""A backend without a model, for dry runs, capacity tests and overhead measurements.

It repeats the last message, one word per token, and continues after a prefix. It is deterministic: the same
requests and settings give the same answers and the same failures.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from actors.backends.base import Backend, Output, host_hardware
from orchestration.errors import (
    BackendFailed,
    ContextTooLong,
    InvalidGuide,
    InvalidRequest,
    UnknownModel,
)
from orchestration.messages import (
    CompletionGeneration,
    Finish,
    FinishReason,
    Generation,
    GuidedDecoding,
    Hardware,
    ModelCard,
    Sampling,
    TextDelta,
    TextGeneration,
    TokenLogprob,
    TopLogprob,
    Usage,
    Vectors,
)
from orchestration.model_memory import Residency
from orchestration.schema_instance import schema_instance

_WORD = re.compile(r"\s*\S+")
_BREATH = 32
"""Outputs, or texts to embed, between two yields to the event loop at full speed."""


class EchoSettings(BaseModel):
    """The backend `echo`, which repeats the last message: for tests and first steps. It can simulate load and
    failures, which are off by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=("echo",), min_length=1)
    """Names of the chat models."""
    embedding_models: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Names of the embedding models."""
    slots: int = Field(default=64, ge=1, le=65_536)
    """Maximum generations in progress."""
    speed: float = Field(default=0.0, ge=0, le=1e6)
    """Tokens per second of each generation; 0: full speed."""
    first_token_s: float = Field(default=0.0, ge=0, le=3600)
    """Time to the first token."""
    slow_every: int = Field(default=0, ge=0)
    """Every n-th generation takes `slow_s` longer to its first token; 0: none."""
    slow_s: float = Field(default=1.0, ge=0, le=3600)
    """Additional time of those generations."""
    repeat: bool = True
    """Whether an answer repeats the message up to `max_tokens`. False: it has the message once."""
    context_tokens: int = Field(default=8192, ge=1, le=1_000_000)
    """Maximum tokens of a prompt and its answer."""
    dimensions: int = Field(default=384, ge=8, le=384)
    """Length of the embedding vectors."""
    model_mb: float = Field(default=0.0, ge=0, le=1e9)
    """Simulated memory of each model, in MB (1e6 bytes)."""
    load_s: float = Field(default=0.0, ge=0, le=3600)
    """Simulated load time of each model."""

    fail_first: int = Field(default=0, ge=0)
    """The first n generations fail before their first token; 0: none."""
    fail_every: int = Field(default=0, ge=0)
    """Every n-th generation fails after `fail_after` tokens; 0: none."""
    fail_after: int = Field(default=0, ge=0)
    """Tokens before such a failure."""
    stall_after: int = Field(default=0, ge=0)
    """Tokens after which every generation stalls until it is cancelled; 0: none stalls."""


class EchoBackend(Backend):
    """Answers with the words of the request. `clock` and `sleep`, in seconds, pace the tokens."""

    name = "echo"

    def __init__(
        self,
        settings: EchoSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings or EchoSettings()
        self._clock = clock
        self._sleep = sleep
        card = ModelCard(
            name="",
            context_tokens=self._settings.context_tokens,
            memory_bytes=round(self._settings.model_mb * 1e6),
            load_s=self._settings.load_s,
        )
        chat, embedding = self._settings.models, self._settings.embedding_models
        self._cards = {name: card.model_copy(update={"name": name}) for name in chat}
        for name in embedding:
            self._cards[name] = card.model_copy(update={"name": name, "kind": "embedding"})
        self._loaded = set(self._cards)
        self._count = 0

    async def start(self, memory_bytes: int = 0) -> None:
        """Load the models, and reset the counter for failures."""
        self._count = 0
        sizes = {name: card.memory_bytes for name, card in self._cards.items()}
        self._loaded = set()
        for name in Residency(memory_bytes, sizes).fitting():
            await self.load(name)

    async def load(self, model: str) -> None:
        if model not in self._cards:
            raise UnknownModel.of(model, list(self._cards))
        if self._settings.load_s:
            await asyncio.sleep(self._settings.load_s)
        self._loaded.add(model)

    async def unload(self, model: str) -> None:
        self._loaded.discard(model)

    async def close(self) -> None:
        """Do nothing."""

    @property
    def models(self) -> tuple[ModelCard, ...]:
        return tuple(self._cards.values())

    @property
    def loaded(self) -> frozenset[str]:
        return frozenset(self._loaded)

    @property
    def hardware(self) -> Hardware:
        return host_hardware("echo")

    @property
    def slots(self) -> int:
        return self._settings.slots

    async def generate(self, generation: Generation) -> AsyncGenerator[Output, None]:
        if generation.model not in self._cards:
            raise UnknownModel.of(generation.model, list(self._cards))
        if generation.model not in self._loaded:
            raise BackendFailed(f"echo model {generation.model!r} is not loaded")
        self._count += 1
        if self._count <= self._settings.fail_first:
            raise BackendFailed(f"echo fails its first {self._settings.fail_first} generations")
        if generation.kind == "embedding":
            for index in range(0, len(generation.inputs), _BREATH):
                await asyncio.sleep(0)
                yield self._embed(index, generation.inputs[index : index + _BREATH])
            tokens = sum(len(text.split()) for text in generation.inputs)
            yield Finish(reason="stop", usage=Usage(prompt_tokens=tokens))
            return
        prompt_tokens, words, reason = self._answer(generation)
        settings = self._settings
        fails = settings.fail_every and self._count % settings.fail_every == 0
        logprobs = generation.sampling.logprobs
        slow = settings.slow_every and self._count % settings.slow_every == 0
        started = self._clock() + settings.first_token_s + (settings.slow_s if slow else 0.0)
        sent = 0
        for word in _after(words, generation.prefix):
            if fails and sent == settings.fail_after:
                break
            if settings.stall_after and sent == settings.stall_after:
                await asyncio.get_running_loop().create_future()  # until cancelled
            if settings.speed or not sent:
                # Each token is due at a time relative to the start, so that late sleeps do not add up.
                wait = started + (sent / settings.speed if settings.speed else 0) - self._clock()
                if wait > 0:
                    await self._sleep(wait)
            if sent % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            sent += 1
            yield TextDelta(text=word, logprobs=_logprobs(word, generation.sampling) if logprobs else None)
        if fails:
            raise BackendFailed(f"echo fails generation {self._count}: fail_every {settings.fail_every}")
        yield Finish(
            reason=reason,
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=generation.prefix_tokens + sent),
        )

    def _answer(self, generation: TextGeneration) -> tuple[int, Iterator[str], FinishReason]:
        """Prompt tokens, the words of the answer, and the finish reason. Raises `InvalidRequest` and
        subclasses."""
        settings, sampling = self._settings, generation.sampling
        if generation.kind == "chat" and not generation.messages:
            raise InvalidRequest("a chat needs at least one message", param="messages")
        prompt_text = " ".join(generation.texts) if generation.kind == "chat" else _prompt(generation)
        prompt_tokens = len(prompt_text.split())
        room = settings.context_tokens - prompt_tokens
        if room <= 0:
            raise ContextTooLong.of(generation.model, prompt_tokens, settings.context_tokens)
        limit = min(room, sampling.max_tokens or room)
        source = _last_user_content(generation)
        if generation.guide is not None:
            source, repeat = _guided(generation.guide), False
        else:
            repeat = settings.repeat and sampling.max_tokens is not None
        words = _WORD.findall(source) or [source.strip() or "…"]
        total = limit if repeat else min(limit, len(words))
        reason: FinishReason = "length" if repeat or total < len(words) else "stop"
        if sampling.stop:
            cut, stopped = _until_stop(itertools.islice(_again(words), total), sampling.stop)
            return prompt_tokens, iter(cut), "stop" if stopped else reason
        return prompt_tokens, itertools.islice(_again(words), total), reason

    def _embed(self, index: int, inputs: tuple[str, ...]) -> Vectors:
        vectors = tuple(_vector(text, self._settings.dimensions) for text in inputs)
        return Vectors(index=index, vectors=vectors)


def _guided(guide: GuidedDecoding) -> str:
    """The first choice, or a small instance of the schema."""
    if guide.choice:
        return guide.choice[0]
    if guide.json_schema is None:
        raise InvalidGuide("echo cannot follow a regular expression or a grammar", param="guide")
    return json.dumps(schema_instance(guide.json_schema), ensure_ascii=False)


def _last_user_content(generation: TextGeneration) -> str:
    """The last user message, else the last message, else the prompt."""
    if generation.kind == "completion":
        return _prompt(generation)
    of_user = [message.content for message in generation.messages if message.role == "user"]
    return (of_user or generation.texts)[-1]


def _prompt(generation: CompletionGeneration) -> str:
    return generation.prompt or " ".join(map(str, generation.prompt_ids))


def _again(words: list[str]) -> Iterator[str]:
    """The words repeated, separated by a space."""
    yield from words
    first = words[0] if words[0][:1].isspace() else f" {words[0]}"
    again = [first, *words[1:]]
    while True:
        yield from again


def _after(words: Iterator[str], prefix: str) -> Iterator[str]:
    """The words without their first `len(prefix)` characters."""
    left = len(prefix)
    for word in words:
        if left < len(word):
            yield word[left:]
        left = max(0, left - len(word))


def _until_stop(words: Iterator[str], stops: tuple[str, ...]) -> tuple[list[str], bool]:
    """The words before the first stop string, and whether there was one."""
    taken = list(words)
    text = "".join(taken)
    end = min((at for stop in stops if stop and (at := text.find(stop)) >= 0), default=-1)
    if end < 0:
        return taken, False
    return [word for word in _WORD.findall(text[:end]) if word], True


def _logprobs(word: str, sampling: Sampling) -> tuple[TokenLogprob, ...]:
    """Log probabilities of 0: echo is always certain."""
    raw = tuple(word.encode())
    tops = (TopLogprob(token=word, logprob=0.0, bytes=raw),) if sampling.top_logprobs else ()
    return (TokenLogprob(token=word, logprob=0.0, bytes=raw, top_logprobs=tops),)


def _vector(text: str, dimensions: int) -> str:
    """A unit vector whose direction is drawn with the text's SHA-256 as the seed."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(dimensions)
    return base64.b64encode((vector / np.linalg.norm(vector)).astype("<f4").tobytes()).decode()
