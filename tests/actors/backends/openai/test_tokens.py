"""How many tokens an upstream's events are taken for, where it says so and where it does not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from actors.backends.openai.token_count import TokenCounter, TokenRatio
from orchestration.messages import ChatGeneration, ChatMessage, Finish, TextDelta
from orchestration.token_length import likely_tokens
from tests.fixtures.scripted import CHAT, DONE, backend_before, stream
from tests.fixtures.upstream import delta, event

ENGLISH = (
    "The honey bee lives in a colony that a single queen founds. In early summer the workers, all of them "
    "her daughters, fly out to gather nectar and pollen, and they tell each other by a dance where to find "
    "flowers. "
    "What they bring home is stored in combs of wax; in winter, when nothing blooms, the colony lives on it. "
) * 4
WORDS = re.findall(r"\s*\S+", ENGLISH)
WRITTEN = 289
"""Tokens of it in the vocabulary of SmolLM2."""


def events(texts: Sequence[str], *more: dict[str, Any]) -> list[bytes]:
    return [*(event(delta(text)) for text in texts), event(delta(None, "stop")), *map(event, more), DONE]


def in_events_of(words: int) -> list[str]:
    return ["".join(WORDS[at : at + words]) for at in range(0, len(WORDS), words)]


async def tokens_of(texts: Sequence[str], *more: dict[str, Any]) -> tuple[int, Finish]:
    """Of the pieces, and the end."""
    async with backend_before(stream(*events(texts, *more))) as (backend, _):
        outputs = [output async for output in backend.generate(CHAT)]
    finish = outputs[-1]
    assert isinstance(finish, Finish)
    return sum(output.tokens for output in outputs if isinstance(output, TextDelta)), finish


@pytest.mark.parametrize("words", [1, 3, 24, len(WORDS)])
async def test_events_of_any_size_count_about_the_tokens_that_they_hold(words: int) -> None:
    counted, finish = await tokens_of(in_events_of(words))
    assert counted == pytest.approx(WRITTEN, rel=0.15)
    assert (finish.usage.completion_tokens, finish.usage.estimated) == (counted, True)
    assert finish.usage.prompt_tokens > 0


async def test_events_of_one_token_count_one_each_whatever_their_text_is() -> None:
    texts = ["$", "\\", "frac", "{", "1", "}{", "2", "}", "$", " 4", "2"] * 9
    counted, _ = await tokens_of(texts)
    assert counted == len(texts)


async def test_what_an_upstream_counts_in_every_event_counts() -> None:
    texts = in_events_of(24)
    said: list[bytes] = []
    for number, text in enumerate(texts, 1):
        usage = {"prompt_tokens": 9, "completion_tokens": 31 * number}
        said.append(event(delta(text) | {"usage": usage}))
    async with backend_before(stream(*said, event(delta(None, "stop")), DONE)) as (backend, _):
        outputs = [output async for output in backend.generate(CHAT)]
    assert sum(output.tokens for output in outputs if isinstance(output, TextDelta)) == 31 * len(texts)


async def test_the_count_at_the_end_counts_and_teaches_what_the_models_tokens_are_like() -> None:
    text = "Ein Bienenvolk überwintert als Traube und zehrt vom eingelagerten Honig. " * 8
    halves = [text[: len(text) // 2], text[len(text) // 2 :]]
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 241}}
    script = stream(*events(halves, usage))
    async with backend_before(script) as (backend, upstream):
        first = [output async for output in backend.generate(CHAT)]
        upstream.script = stream(*events(halves))
        second = [output async for output in backend.generate(CHAT)]
    assert isinstance(first[-1], Finish)
    assert isinstance(second[-1], Finish)
    assert (first[-1].usage.completion_tokens, first[-1].usage.estimated) == (241, False)
    assert second[-1].usage.completion_tokens == pytest.approx(241, rel=0.02)


def test_a_count_that_is_of_something_else_teaches_nothing() -> None:
    rate = TokenRatio()
    count = TokenCounter(rate)
    count.add("The answer is 42.")
    count.learn(9_000)  # it thought, and showed none of that
    assert rate.value == 1
    assert count.add("", reported=0) == 0
    assert likely_tokens("") == 0


async def test_a_prompt_that_nobody_counted_is_estimated() -> None:
    asked = ChatGeneration(id="a.1", model=CHAT.model, messages=(ChatMessage(role="user", content=ENGLISH),))
    async with backend_before(stream(*events(["Yes"]))) as (backend, _):
        outputs = [output async for output in backend.generate(asked)]
    assert isinstance(outputs[-1], Finish)
    assert outputs[-1].usage.prompt_tokens == pytest.approx(WRITTEN, rel=0.25)
