"""Generations that share an engine."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from actors.engine.onnx_backend import OnnxBackend
from actors.engine.worker import EngineStats
from orchestration.errors import ContextTooLong, NodeBusy
from orchestration.messages import Finish, Generation, TextDelta
from tests.actors.engine.onnx.asking import DEADLINE_S, Answer, ask, chat, generating
from tests.fixtures.eventually import eventually

PROMPTS = [
    "Write a short story about a lighthouse keeper.",
    "Explain photosynthesis.",
    "List ten animals.",
    "What is the difference between a river and a lake? Answer in detail, with three examples.",
    "Hi!",
    "Write a poem about the sea.",
    "How do I bake bread? " + "Please be thorough. " * 40,
    "Count from one to twenty in words.",
]


def stats(backend: OnnxBackend) -> EngineStats:
    return backend.stats[0]


async def test_greedy_answers_do_not_depend_on_who_shares_the_batch(backend: OnnxBackend) -> None:
    def asked(at: int) -> Generation:
        return chat(PROMPTS[at], max_tokens=20 + 5 * at, logprobs=True, top_logprobs=2)

    alone = [await ask(backend, asked(at)) for at in range(len(PROMPTS))]
    order = [6, 0, 3, 7, 1, 5, 2, 4]

    async def staggered(turn: int, at: int) -> Answer:
        # Each arrives when the model has taken some more steps: in the middle of the others' work.
        start = stats(backend).steps
        await eventually(
            lambda: stats(backend).steps >= start + 4 * turn or not stats(backend).running,
            within_s=DEADLINE_S,
        )
        return await ask(backend, asked(at))

    together = await asyncio.gather(*(staggered(turn, at) for turn, at in enumerate(order)))
    whole = 0
    for at, answer in zip(order, together, strict=True):
        assert answer.text.encode().startswith(alone[at].sure)
        if alone[at].sure == alone[at].text.encode():
            whole += 1
            assert answer.text == alone[at].text
            assert answer.finish.reason == alone[at].finish.reason
            assert answer.finish.usage.completion_tokens == alone[at].finish.usage.completion_tokens
    assert whole >= len(PROMPTS) // 2


async def test_a_late_request_gets_its_first_token_before_the_others_end(backend: OnnxBackend) -> None:
    order: list[str] = []

    async def early(number: int) -> None:
        await ask(backend, chat(f"Write a long story about the number {number}.", max_tokens=120))
        order.append("early ended")

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(early(number))
        await eventually(
            lambda: stats(backend).running == 6 and stats(backend).kv_tokens > 6 * 60, within_s=DEADLINE_S
        )
        async with generating(backend, chat("What is water?", max_tokens=4)) as items:
            async for item in items:
                if isinstance(item, TextDelta):
                    order.append("late began")
                    break
    assert order[0] == "late began"
    assert order.count("early ended") == 6


async def test_a_short_prompt_is_not_stalled_by_a_long_one_being_read(backend: OnnxBackend) -> None:
    long = chat("word " * 600, max_tokens=1)
    order: list[str] = []

    async def named(name: str, generation: Generation) -> None:
        await ask(backend, generation)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(named("long", long))
        await eventually(lambda: stats(backend).kv_tokens > 0, within_s=DEADLINE_S)
        group.create_task(named("short", chat("Name a colour.", max_tokens=3)))
    assert order == ["short", "long"]


async def test_decoding_goes_on_while_a_long_prompt_is_read(backend: OnnxBackend) -> None:
    async with generating(backend, chat("Write a long story about ants.", max_tokens=200)) as items:
        async for _ in items:
            break
        reader = asyncio.create_task(ask(backend, chat("many words " * 400, max_tokens=1)))
        seen = 0
        async for item in items:
            seen += isinstance(item, TextDelta)
            if reader.done() or isinstance(item, Finish):
                break
        await reader
    assert seen >= 5


async def test_a_cancelled_generation_frees_its_row_at_the_next_step(backend: OnnxBackend) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(generating(backend, chat("Tell a story.", max_tokens=400)))
        await anext(other)
        async with generating(backend, chat("Tell another story.", max_tokens=400)) as items:
            await anext(items)
            assert stats(backend).running == 2
        steps = stats(backend).steps
        await eventually(lambda: stats(backend).running == 1, within_s=DEADLINE_S)
        # One step may have been under way, and one reading of the counters may lag.
        assert stats(backend).steps <= steps + 2
        await anext(other)
    await eventually(lambda: stats(backend).running == 0, within_s=DEADLINE_S)
    assert stats(backend).kv_tokens == 0


async def test_a_task_cancelled_while_it_waits_frees_its_row_too(backend: OnnxBackend) -> None:
    task = asyncio.create_task(ask(backend, chat("Tell a story.", max_tokens=2000)))
    await eventually(lambda: stats(backend).running == 1, within_s=DEADLINE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: stats(backend).running == 0, within_s=DEADLINE_S)


async def test_a_full_waiting_room_refuses_and_says_its_limit(backend: OnnxBackend) -> None:
    places = 16 + 8
    async with AsyncExitStack() as stack:
        waiting = []
        for number in range(places):
            items = await stack.enter_async_context(
                generating(backend, chat(f"Story {number}", max_tokens=300))
            )
            waiting.append(asyncio.ensure_future(anext(items)))
        await eventually(
            lambda: stats(backend).running == 16 and stats(backend).waiting == 8, within_s=DEADLINE_S
        )
        with pytest.raises(NodeBusy, match=f"{places} of {places} generations") as caught:
            await ask(backend, chat("One more"))
        assert caught.value.retryable
        assert caught.value.retry_after_s
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    await eventually(lambda: stats(backend).running == 0, within_s=DEADLINE_S)
    assert (await ask(backend, chat("Hello", max_tokens=2))).finish.usage.completion_tokens == 2


async def test_who_waits_for_a_slot_is_served_when_one_is_free(backend: OnnxBackend) -> None:
    answers = await asyncio.gather(
        *(ask(backend, chat(f"Say {number}.", max_tokens=6)) for number in range(22))
    )
    assert all(answer.finish.usage.completion_tokens <= 6 for answer in answers)
    assert all(answer.text for answer in answers)


async def test_a_shared_prefix_is_reused_and_changes_nothing(backend: OnnxBackend) -> None:
    system = "You are a careful critic. " + "You read every sentence twice and name its weakness. " * 8
    first = await ask(backend, chat("Judge: the sky is green.", system=system, max_tokens=30))
    again = await ask(backend, chat("Judge: the sky is green.", system=system, max_tokens=30))
    other = await ask(backend, chat("Judge: two and two is five.", system=system, max_tokens=30))
    assert first.text == again.text
    assert again.finish.usage.cached_tokens >= again.finish.usage.prompt_tokens - 32
    assert other.finish.usage.cached_tokens >= 80
    assert other.finish.usage.cached_tokens < other.finish.usage.prompt_tokens


async def test_prompts_that_arrive_together_share_what_the_first_has_read(backend: OnnxBackend) -> None:
    system = "You know all about bees. " * 20
    answers = await asyncio.gather(
        *(ask(backend, chat(f"Question {number}", system=system, max_tokens=3)) for number in range(6))
    )
    cached = sorted(answer.finish.usage.cached_tokens for answer in answers)
    assert cached[1] >= 64, cached


async def test_the_event_loop_turns_while_a_huge_prompt_is_tokenised(backend: OnnxBackend) -> None:
    asked = asyncio.create_task(ask(backend, chat("word and worse " * 70_000)))
    turns = 0
    while not asked.done():
        await asyncio.sleep(0.001)
        turns += 1
    with pytest.raises(ContextTooLong):
        await asked
    # A megabyte takes some hundred milliseconds; held up by it, the loop would turn a few times at most.
    assert turns > 30


async def test_an_idle_engine_takes_no_step(backend: OnnxBackend) -> None:
    await eventually(lambda: stats(backend).running == 0, within_s=DEADLINE_S)
    steps = stats(backend).steps
    await ask(backend, chat("Hi", max_tokens=1))
    taken = stats(backend).steps
    assert taken > steps
    await asyncio.sleep(0)
    assert stats(backend).steps == taken
