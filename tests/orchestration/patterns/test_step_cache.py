"""A run that is taken up: nothing that was recorded is asked again, and nothing is said twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import BackendFailed
from orchestration.messages import Budget, ChatMessage, JoinedText, Run, TextDelta, ToolResult
from orchestration.patterns import (
    Pattern,
    PatternSettings,
    ResumeFilter,
    RunContext,
    StepCache,
    StepRecord,
    StepResult,
    pattern,
)
from tests.orchestration.patterns.scripted import Scripted, make_context, make_run

SCRIPT = {"plan": "read, then write", "code": "x = 1", "synthesis": "It scatters all the light."}
STEPS = ["plan", "research", "code", "review", "synthesis"]


@pattern("chain")
async def chain(
    run: Run, context: RunContext, settings: PatternSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """Every step sees what the plan says, and the later ones all that was found."""
    plan = await context.ask("coordinator", run.messages, name="plan")
    found = ""
    for agent in ("research", "code", "critic"):
        messages = (ChatMessage(role="user", content=f"{plan.text.split()[-1]} {found}"),)
        name = "review" if agent == "critic" else agent
        try:
            found += (await context.ask(agent, messages, name=name)).text
        except BackendFailed as error:
            await context.warn(f"without {agent}: {error.message}")
    last = (ChatMessage(role="user", content=found),)
    async with aclosing(context.stream("coordinator", last, name="synthesis")) as items:
        async for item in items:
            yield item


@dataclass
class Book:
    """Records of one run, and the order in which they came."""

    kept: dict[str, StepRecord] = field(default_factory=dict)

    async def keep(self, kept: StepRecord) -> StepRecord:
        return self.kept.setdefault(kept.step.name, kept)


async def performed(
    pattern: Pattern, run: Run, ask: Scripted, book: Book, resume_filter: ResumeFilter | None = None
) -> tuple[str, RunContext]:
    """What goes out to the caller, who has what `resume_filter` says."""
    cache = StepCache(book, dict(book.kept))
    context = make_context(run, ask, step_cache=cache, resume_filter=resume_filter)
    said = []
    async for item in pattern(run, context):
        if isinstance(item, TextDelta):
            part = context.resume_filter.new(item)
            said.append(part.text if part is not None else "")
    return "".join(said), context


async def test_a_step_is_recorded_before_the_pattern_goes_on_and_the_last_one_not_at_all() -> None:
    book, ask = Book(), Scripted(SCRIPT)
    await performed(chain, make_run(), ask, book)
    assert list(book.kept) == STEPS[:-1]
    assert [question.name for question in ask.asked] == STEPS


@pytest.mark.parametrize("recorded", range(1, 5))
async def test_every_recorded_step_answers_at_once_and_the_rest_is_done(recorded: int) -> None:
    first, book = Scripted(SCRIPT), Book()
    run = make_run(budget=Budget(calls=9, tokens=9_000))
    _, before = await performed(chain, run, first, book)
    book.kept = {name: book.kept[name] for name in STEPS[:recorded]}
    ask = Scripted(SCRIPT)
    text, context = await performed(chain, run, ask, book)
    assert text == SCRIPT["synthesis"]
    assert [question.name for question in ask.asked] == STEPS[recorded:]
    assert [(step.name, step.text, step.usage) for step in context.steps] == [
        (step.name, step.text, step.usage) for step in before.steps
    ]
    assert [step.name for step in ask.told] == STEPS[recorded:]  # people heard of the others before
    again = [data["step"].name for kind, data in ask.happened if data.get("recorded")]
    assert again == STEPS[:recorded]
    assert f"{STEPS[0]}: coordinator did this before, and is not asked again" in ask.said
    assert (context.budget.calls, context.budget.tokens) == (before.budget.calls, before.budget.tokens)
    assert context.budget.seconds > book.kept[STEPS[recorded - 1]].run_s


async def test_a_step_that_asks_something_else_is_done_again() -> None:
    book = Book()
    await performed(chain, make_run(), Scripted(SCRIPT), book)
    step = book.kept["code"].step.model_copy(update={"text": "y = 2"})
    book.kept["code"] = book.kept["code"].model_copy(update={"step": step})
    ask = Scripted(SCRIPT)
    await performed(chain, make_run(), ask, book)
    assert [question.name for question in ask.asked] == ["review", "synthesis"]


async def test_what_another_coordinator_recorded_first_is_what_counts() -> None:
    book = Book()
    await performed(chain, make_run(), Scripted(SCRIPT | {"research": "theirs"}), book)
    ask = Scripted(SCRIPT | {"research": "ours"})
    context = make_context(make_run(), ask, step_cache=StepCache(book))  # it knows of none when it begins
    _ = [item async for item in chain(context.run, context)]
    found = next(step for step in context.steps if step.name == "research")
    assert found.text == "theirs"
    assert "theirs" in ask.question("review").messages[-1].content


async def test_a_step_that_failed_is_tried_again() -> None:
    book = Book()
    await performed(chain, make_run(), Scripted(SCRIPT | {"code": BackendFailed("broken")}), book)
    assert list(book.kept) == ["plan", "research", "review"]
    ask = Scripted(SCRIPT | {"code": "x = 1"})
    _, context = await performed(chain, make_run(), ask, book)
    assert [question.name for question in ask.asked] == ["code", "review", "synthesis"]
    assert not any(step.error for step in context.steps)


@pattern("two-parts")
async def two_parts(
    run: Run, context: RunContext, settings: PatternSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The caller sees two steps, with a word of the pattern's own between them."""
    async for item in context.stream("coordinator", run.messages, name="first"):
        if isinstance(item, TextDelta):
            yield item
    yield TextDelta(text=" / ")
    async for item in context.stream("coordinator", run.messages, name="second"):
        yield item


WHOLE = "one two / three four"


@pytest.mark.parametrize("had", range(len(WHOLE) + 1))
async def test_the_caller_gets_the_rest_of_an_answer_of_several_parts_wherever_it_broke(had: int) -> None:
    script = {"first": "one two", "second": "three four"}
    book = Book()
    await performed(two_parts, make_run(), Scripted(script), book)
    assert list(book.kept) == ["first"]  # recorded when another followed
    if had <= len("one two"):
        book.kept.clear()

    class GoesOn(Scripted):
        """Goes on from a prefix, as nodes do."""

        def _line(self, question):  # type: ignore[no-untyped-def]
            line = super()._line(question)
            assert line.startswith(question.prefix)
            return line[len(question.prefix) :]

    text, context = await performed(
        two_parts, make_run(), GoesOn(script), book, ResumeFilter(WHOLE[:had], tokens=4)
    )
    assert WHOLE[:had] + text == WHOLE
    assert [step.text for step in context.steps] == ["one two", "three four"]
    assert not context.resume_filter.anew


@given(st.text(max_size=12), st.lists(st.text(max_size=4), max_size=6))
def test_whatever_goes_out_is_the_rest_of_what_the_caller_has_or_said_to_begin_anew(
    had: str, parts: list[str]
) -> None:
    outlet = ResumeFilter(had, tokens=3)
    out = [outlet.new(TextDelta(text=part)) for part in parts]
    said, whole = had + "".join(part.text for part in out if part is not None), "".join(parts)
    if outlet.anew:
        assert not whole.startswith(had)
        assert said.endswith(whole[len(had) :][-1:])
    else:
        assert said == (whole if len(whole) >= len(had) else had)


async def test_an_answer_that_does_not_go_on_from_what_the_caller_has_begins_anew() -> None:
    text, context = await performed(
        two_parts, make_run(), Scripted({"first": "uno"}), Book(), ResumeFilter("one", 1)
    )
    assert text == "uno / words of wisdom"  # the step went on from "one"
    kept = {"first": "eins", "second": "zwei"}
    book = Book()
    await performed(two_parts, make_run(), Scripted(kept), book)
    text, context = await performed(two_parts, make_run(), Scripted(kept), book, ResumeFilter("one", 1))
    assert text == "\n\neins / zwei"
    assert context.resume_filter.anew


def test_what_begins_anew_takes_the_place_of_all_that_the_caller_has() -> None:
    outlet, joined = ResumeFilter("one two", tokens=2), JoinedText()
    joined.add(TextDelta(text="one two", tokens=2))
    for part in (TextDelta(text="one "), TextDelta(text="uno"), TextDelta(text=" due")):
        if (new := outlet.new(part)) is not None:
            joined.add(new)
    assert joined.text == "one uno due"
    assert outlet.anew
    corrected = TextDelta(text=", no: three", replaces=6)
    assert ResumeFilter("one tw", tokens=2).new(corrected) == corrected
    assert ResumeFilter("one, no", tokens=2).new(TextDelta(text="one")) is None
    halfway = ResumeFilter("one, no", tokens=2)
    halfway.new(TextDelta(text="one"))
    assert halfway.new(corrected) == TextDelta(text=": three", replaces=2)


async def test_a_tool_is_used_once_and_its_result_is_recorded_whole() -> None:
    @pattern("handy")
    async def handy(
        run: Run, context: RunContext, settings: PatternSettings
    ) -> AsyncGenerator[TextDelta | StepResult, None]:
        """Uses a tool."""
        result = await context.use("reasoning", "calculator", {"expression": "1 + 1"}, name="sum")
        messages = (ChatMessage(role="user", content=f"{result.text} {result.data}"),)
        async for item in context.stream("coordinator", messages, name="answer"):
            yield item

    book = Book()
    results = {"reasoning": {"calculator": ToolResult(text="2", data={"value": 2})}}
    first, second = Scripted({}, tool_results=results), Scripted({}, tool_results=results)
    await performed(handy, make_run(), first, book)
    assert list(book.kept) == ["sum"]
    await performed(handy, make_run(), second, book)
    assert len(first.used) == 1
    assert second.used == []
    assert second.question("answer").messages == first.question("answer").messages
    book.kept["sum"] = book.kept["sum"].model_copy(update={"fingerprint": "something else"})
    await performed(handy, make_run(), third := Scripted({}, tool_results=results), book)
    assert len(third.used) == 1
    assert replace(third.used[0], seconds=None) == replace(first.used[0], seconds=None)
