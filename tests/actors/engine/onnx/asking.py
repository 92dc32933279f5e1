"""Asking a backend, for the tests of this folder."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from actors.backends.base import Output
from actors.engine.backend import EngineBackend
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    CompletionGeneration,
    EmbeddingGeneration,
    Finish,
    Generation,
    GuidedDecoding,
    Sampling,
    TextDelta,
    TokenLogprob,
    Vectors,
)

MODEL = "smollm2-135m"
EMBEDDER = "all-minilm-l6-v2"
DEADLINE_S = 60.0

PROMISED = 0.01
"""How far company, cuts of a prompt and the processor may move a logit (`actors.models.manifest`)."""

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A generation that came to its end."""

    pieces: tuple[TextDelta, ...]
    finish: Finish

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def logprobs(self) -> list[TokenLogprob]:
        return [each for piece in self.pieces for each in piece.logprobs or ()]

    @property
    def leads(self) -> list[float]:
        """By how much each token was likelier than the next; for one asked for with `top_logprobs=2`."""
        return [each.top_logprobs[0].logprob - each.top_logprobs[1].logprob for each in self.logprobs]

    @property
    def sure(self) -> bytes:
        """The text up to the first token that another rounding may choose otherwise."""
        unsure = (at for at, lead in enumerate(self.leads) if lead <= 2 * PROMISED)
        return b"".join(bytes(each.bytes) for each in self.logprobs[: next(unsure, None)])


def chat(
    text: str, *, system: str = "", guide: GuidedDecoding | None = None, **sampling: Any
) -> ChatGeneration:
    """A chat generation, greedy unless `sampling` says otherwise."""
    messages = (ChatMessage(role="system", content=system),) if system else ()
    return ChatGeneration(
        id=f"test.{next(_numbers)}",
        model=MODEL,
        messages=(*messages, ChatMessage(role="user", content=text)),
        sampling=Sampling(**{"temperature": 0.0, **sampling}),
        guide=guide,
    )


def complete(prompt: str, **sampling: Any) -> CompletionGeneration:
    """A plain completion, greedy unless `sampling` says otherwise."""
    return CompletionGeneration(
        id=f"test.{next(_numbers)}",
        model=MODEL,
        prompt=prompt,
        sampling=Sampling(**{"temperature": 0.0, **sampling}),
    )


@asynccontextmanager
async def generating(backend: EngineBackend, generation: Generation) -> AsyncIterator[AsyncIterator[Output]]:
    """The items of `generation`; leaving the block cancels it."""
    async with asyncio.timeout(DEADLINE_S):
        async with aclosing(cast(Any, backend.generate(generation))) as items:
            yield items


async def ask(backend: EngineBackend, generation: Generation) -> Answer:
    """Run `generation` to its end."""
    pieces: list[TextDelta] = []
    async with generating(backend, generation) as items:
        async for item in items:
            if isinstance(item, Finish):
                return Answer(pieces=tuple(pieces), finish=item)
            assert isinstance(item, TextDelta)
            pieces.append(item)
    raise AssertionError("the generation ended without a Finish")


async def embed(backend: EngineBackend, *texts: str) -> tuple[NDArray[np.float32], Finish]:
    """Vectors [texts, hidden]."""
    generation = EmbeddingGeneration(id=f"test.{next(_numbers)}", model=EMBEDDER, inputs=texts)
    vectors: list[NDArray[np.float32]] = []
    async with generating(backend, generation) as items:
        async for item in items:
            if isinstance(item, Finish):
                return np.stack(vectors), item
            assert isinstance(item, Vectors)
            assert item.index == len(vectors)
            vectors += [np.frombuffer(base64.b64decode(each), "<f4") for each in item.vectors]
    raise AssertionError("the generation ended without a Finish")
