"""What a run has used: of steps that ended, failed or were stopped, here and at an earlier coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from orchestration.accounts import accounts_of
from orchestration.errors import BackendFailed
from orchestration.messages import Budget, Finish, Run, TextDelta, Usage
from orchestration.patterns import (
    GenerationRequest,
    PatternSettings,
    RunContext,
    StepCache,
    StepOptions,
    StepRecord,
    StepResult,
    pattern,
)
from orchestration.patterns.base import StepAccepted
from tests.orchestration.patterns.scripted import AGENTS, Scripted, counting_clock, make_context, make_run
from tests.orchestration.patterns.test_step_cache import Book

SCRIPT = {"quick": "one two", "last": "three"}


@dataclass
class Halting(Scripted):
    """The step `slow` writes three words, two tokens each, and never ends; `broken` fails after one word.
    Both say first which model writes."""

    async def generate(
        self, question: GenerationRequest
    ) -> AsyncGenerator[StepAccepted | TextDelta | Finish, None]:
        if question.name not in ("slow", "broken"):
            async with aclosing(super().generate(question)) as items:
                async for item in items:
                    yield item
            return
        self.asked.append(question)
        yield StepAccepted(model="m-slow")
        for word in ("um ", "well ", "so ") if question.name == "slow" else ("oh ",):
            yield TextDelta(text=word, tokens=2)
        if question.name == "broken":
            raise BackendFailed("it broke")
        await asyncio.get_running_loop().create_future()


@pattern("halting")
async def halting(
    run: Run, context: RunContext, settings: PatternSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """One step ends, one fails, one is stopped; then another is the answer."""
    speaks = asyncio.Event()

    def heard(part: TextDelta) -> None:
        if part.text == "so ":
            speaks.set()

    slow = asyncio.create_task(context.ask("coordinator", run.messages, name="slow", on_delta=heard))
    await speaks.wait()
    await context.ask("coordinator", run.messages, name="quick", options=StepOptions(model="m-quick"))
    with pytest.raises(BackendFailed):
        await context.ask("coordinator", run.messages, name="broken", options=StepOptions(model="m-broken"))
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    async for item in context.stream("coordinator", run.messages, name="last"):
        yield item
    await context.settle()


async def performed(book: Book, run: Run | None = None) -> tuple[RunContext, Halting]:
    ask = Halting(SCRIPT)
    run = run or make_run(budget=Budget(tokens=9_000))
    context = make_context(run, ask, step_cache=StepCache(book, dict(book.kept)))
    async for _ in halting(context.run, context):
        pass
    return context, ask


def spent(context: RunContext) -> int:
    return context.usage.prompt_tokens + context.usage.completion_tokens


async def test_what_stopped_and_failed_steps_wrote_is_in_the_usage_and_apart() -> None:
    context, ask = await performed(Book())
    steps = {step.name: step for step in context.steps}
    assert (steps["slow"].finish_reason, steps["slow"].text) == ("cancelled", "um well so ")
    assert (steps["slow"].usage.completion_tokens, steps["slow"].model) == (6, "m-slow")
    assert steps["slow"].usage.prompt_tokens > 0
    assert steps["slow"].error is None
    assert (steps["broken"].usage.completion_tokens, steps["broken"].model) == (2, "m-slow")
    assert context.usage.completion_tokens == 2 + 2 + 6 + 1
    assert context.usage.estimated
    assert context.budget.tokens == spent(context) == context.report["budget"]["tokens"]["used"]
    accounts = accounts_of(context.steps)
    assert {model: usage.completion_tokens for model, usage in accounts.by_model.items()} == {
        "m-slow": 8,
        "m-quick": 2,
        "m": 1,
    }
    assert accounts.discarded == steps["slow"].usage + steps["broken"].usage
    assert sum(accounts.by_model.values(), Usage()) == context.usage
    told = [data["step"] for kind, data in ask.happened if kind == "step_ended"]
    assert sorted(step.name for step in told) == sorted(steps)  # who watches hears of each once
    assert sorted(step.name for step in ask.told) == sorted(steps)
    assert told[-1].name == "last"


async def test_a_step_that_is_stopped_while_it_is_recorded_counts() -> None:
    recording = asyncio.Event()

    class Slow(Book):
        async def keep(self, kept: StepRecord) -> StepRecord:
            recording.set()
            await asyncio.get_running_loop().create_future()
            return kept

    ask = Scripted(SCRIPT)
    context = make_context(make_run(), ask, step_cache=StepCache(Slow()))
    asking = asyncio.create_task(context.ask("coordinator", context.run.messages, name="quick"))
    await recording.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [(step.name, step.finish_reason) for step in context.steps] == [("quick", "cancelled")]
    assert context.budget.tokens == spent(context) == 12


async def test_a_caller_that_leaves_stops_a_step_that_counts() -> None:
    context = make_context(make_run(), Halting(SCRIPT), agents=AGENTS, clock=counting_clock())
    async with aclosing(context.stream("coordinator", context.run.messages, name="slow")) as items:
        await anext(items)
    assert [(step.name, step.usage.completion_tokens) for step in context.steps] == [("slow", 2)]
    assert context.budget.tokens == spent(context)


async def test_a_run_that_is_taken_up_counts_what_its_first_coordinator_threw_away() -> None:
    book = Book()
    first, _ = await performed(book)
    before = {step.name: step.usage for step in first.steps}
    assert sorted(book.kept) == ["broken (attempt 1)", "quick", "slow (attempt 1)"]
    again, ask = await performed(book)
    assert [question.name for question in ask.asked] == ["slow", "broken", "last"]
    usages = {step.name: step.usage for step in again.steps}
    assert usages["slow (attempt 1)"] == before["slow"]
    assert usages["broken (attempt 1)"] == before["broken"]
    assert again.budget.tokens == spent(again)
    assert spent(again) == spent(first) + sum(
        usages[name].prompt_tokens + usages[name].completion_tokens for name in ("slow", "broken")
    )
    assert accounts_of(again.steps).discarded.completion_tokens == 2 * (6 + 2)
    third, _ = await performed(book)
    assert accounts_of(third.steps).discarded.completion_tokens == 3 * (6 + 2)


async def test_a_step_that_is_stopped_names_the_model_that_accepted_it() -> None:
    context = make_context(make_run(), Halting(SCRIPT), agents=AGENTS, clock=counting_clock())
    async with aclosing(context.stream("coordinator", context.run.messages, name="slow")) as items:
        assert await anext(items) == TextDelta(text="um ", tokens=2)
    assert [step.model for step in context.steps] == ["m-slow"]
