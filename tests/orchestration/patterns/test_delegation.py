"""A step that an agent does: its parts count for the run as if they were done by the coordinator."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_jsonable_python

from orchestration.errors import BudgetExceeded, InvalidRequest, NodeLost
from orchestration.messages import Budget, ChatMessage, Priority, Sampling, Step, Usage
from orchestration.patterns import (
    BudgetTracker,
    GenerationRequest,
    ResumeFilter,
    RunContext,
    StepCache,
    StepDone,
    StepRecord,
    StepRequest,
    perform_step,
)
from orchestration.patterns.specialist_step import run_specialist_step
from orchestration.patterns.specialists import research
from orchestration.patterns.step_request import (
    StepEvent,
    StepProgress,
    StepRecorded,
    StepRunEvent,
    StepText,
    StepWritten,
)
from tests.orchestration.patterns.scripted import Scripted, make_context, make_run, perform
from tests.orchestration.patterns.test_specialist_step import HARBOUR, WithoutVectors
from tests.orchestration.patterns.test_step_cache import Book

QUESTION = (ChatMessage(role="user", content="When does the harbour open?"),)


class Agent(WithoutVectors):
    """Does the steps that are sent to it; what happens is in `sent`."""

    def __init__(self, answer: str = "The harbour opens at six.") -> None:
        super().__init__(
            {"find": answer, "answer": answer}, tool_results={"research": {"knowledge": HARBOUR}}
        )
        self.sent: list[StepEvent] = []

    async def progress(self, text: str, step: Step | None) -> None:
        self.sent.append(StepProgress(text=text, finished=step.name if step else ""))

    async def event(self, type: str, data: dict[str, Any]) -> None:
        self.sent.append(StepRunEvent(event=type, data=to_jsonable_python(data, exclude_none=True)))

    async def keep(self, record: StepRecord) -> StepRecord:
        if record.fingerprint:
            self.sent.append(StepRecorded(record=record))
        return record


@dataclass
class Coordinator(Scripted):
    """Has no tools, and an agent that has some. `lost_after` ends the agent's events so early."""

    agent: Agent = field(default_factory=Agent)
    lost_after: int | None = None
    requests: list[StepRequest] = field(default_factory=list)

    async def perform(self, request: StepRequest) -> AsyncGenerator[StepEvent, None]:
        request = StepRequest.model_validate_json(request.model_dump_json(exclude_defaults=True))
        self.requests.append(request)
        context = make_context(
            request.run,
            self.agent,
            step_cache=StepCache(self.agent, {each.step.name: each for each in request.records}),
            resume_filter=ResumeFilter(request.prefix, request.prefix_tokens),
        )
        async for item in perform_step(context, request):
            if isinstance(item, StepDone):
                item = item.model_copy(update={"report": context.report.sections})
                self.agent.sent.append(item)
            else:
                self.agent.sent.append(StepText(delta=item))
        for number, event in enumerate(self.agent.sent):
            if number == self.lost_after:
                yield StepWritten(text="The har", tokens=3, model="m")
                raise NodeLost("the agent is silent")
            yield event


async def find(ask: Coordinator, book: Book | None = None, **run: Any) -> RunContext:
    cache = StepCache(book, dict(book.kept)) if book is not None else None
    context = make_context(make_run(**run), ask, step_cache=cache)
    await run_specialist_step(context, "research", QUESTION, name="find")
    return context


async def test_the_parts_of_the_step_are_steps_of_the_run_in_its_accounts_report_and_events() -> None:
    ask = Coordinator({})
    context = await find(ask, budget=Budget(tokens=9_000, calls=9))
    assert [(step.name, step.tool) for step in context.steps] == [
        ("find: knowledge", "knowledge"),
        ("find", ""),
    ]
    assert ask.told == context.steps
    assert context.usage == context.steps[1].usage
    used = context.usage.prompt_tokens + context.usage.completion_tokens
    assert (context.budget.calls, context.budget.tokens) == (1, used)
    assert [source["n"] for source in context.report["sources"]] == [1, 2]
    kinds = [kind for kind, _ in ask.happened]
    assert kinds == ["step_started", "step_ended", "step_started", "step_ended", "grounding"]
    assert ask.asked == []  # the coordinator made no call


async def test_the_answer_is_what_the_agent_made_of_it() -> None:
    context = make_context(make_run(), Coordinator({}))
    answer = await run_specialist_step(context, "research", QUESTION, name="find")
    assert answer.text == "The harbour opens at six. [1]"


async def test_an_answer_of_research_is_streamed_with_its_sources_and_warnings_are_notes() -> None:
    ask = Coordinator({}, agent=Agent("The harbour opens at six. Whales sleep in the bay all winter."))
    text, answer, context = await perform(research, make_run(QUESTION[0].content), ask)
    assert text == answer.text
    assert "Sources:\n[1] Harbour › Hours (/docs/harbour.md)" in text
    assert context.notes == ["not supported by the sources: “Whales sleep in the bay all winter.”"]


async def test_parts_that_were_recorded_are_not_done_again_when_the_run_is_taken_up() -> None:
    book = Book()
    await find(Coordinator({}), book)
    assert list(book.kept) == ["find: knowledge", "find"]
    ask = Coordinator({})
    context = await find(ask, book)
    assert (ask.agent.used, ask.agent.asked) == ([], [])
    assert [step.name for step in context.steps] == ["find: knowledge", "find"]
    again = [data["recorded"] for kind, data in ask.happened if kind == "step_ended"]
    assert again == [True, True]


async def test_what_a_lost_agent_had_recorded_is_kept_and_what_it_was_at_counts_as_stopped() -> None:
    ask, book = Coordinator({}, lost_after=5), Book()
    context = make_context(make_run(budget=Budget(tokens=9_000)), ask, step_cache=StepCache(book))
    with pytest.raises(NodeLost):
        await run_specialist_step(context, "research", QUESTION, name="find")
    assert list(book.kept) == ["find: knowledge"]
    found, stopped = context.steps
    assert (found.name, found.discarded) == ("find: knowledge", False)
    assert (stopped.name, stopped.finish_reason, stopped.text) == ("find", "cancelled", "The har")
    assert stopped.usage.completion_tokens == 3
    assert context.budget.tokens == stopped.usage.prompt_tokens + 3


async def test_a_tool_of_an_agent_is_used_by_one_request_and_none_is_an_error_that_says_so() -> None:
    ask = Coordinator({})
    context = make_context(make_run(), ask)
    result = await context.use("research", "knowledge", {"query": "harbour"}, name="look")
    assert result == HARBOUR
    assert [request.kind for request in ask.requests] == ["tool"]
    with pytest.raises(InvalidRequest, match="research has no tool 'shell'; its tools: knowledge"):
        await context.use("research", "shell", {}, name="try")
    alone = make_context(make_run(), Scripted({}))
    with pytest.raises(InvalidRequest, match="research has no tool 'knowledge'; its tools: none"):
        await alone.use("research", "knowledge", {}, name="look")
    assert alone.steps == []


async def test_a_step_that_the_budget_does_not_reach_for_is_not_sent() -> None:
    ask = Coordinator({})
    with pytest.raises(BudgetExceeded):
        await find(ask, budget=Budget(calls=1))
    assert ask.requests == []


def question(words: int, max_tokens: int) -> GenerationRequest:
    return GenerationRequest(
        name="find",
        agent="research",
        messages=(ChatMessage(role="user", content="word " * words),),
        sampling=Sampling(max_tokens=max_tokens),
        guide=None,
        model=None,
        priority=Priority.INTERACTIVE,
        labels={},
    )


@given(
    tokens=st.integers(64, 20_000),
    calls=st.integers(1, 12),
    steps=st.lists(st.tuples(st.integers(1, 300), st.integers(16, 400), st.floats(0, 1)), max_size=8),
)
def test_steps_at_work_at_the_same_time_get_no_more_than_the_budget_together(
    tokens: int, calls: int, steps: list[tuple[int, int, float]]
) -> None:
    tracker = BudgetTracker(Budget(tokens=tokens, calls=calls), clock=lambda: 0.0, final_tokens=64)
    shares = []
    for words, most, _ in steps:
        try:
            shares.append(tracker.share("find", question(words, most), last=False))
        except BudgetExceeded:
            continue
    assert sum(share.budget.tokens or 0 for share in shares) <= tokens
    assert sum(share.budget.calls or 0 for share in shares) < calls or not shares
    for share, (_, _, part) in zip(shares, steps, strict=False):
        used = int((share.budget.tokens or 0) * part)
        tracker.used(share, Usage(prompt_tokens=used))
        tracker.give_back(share)
    assert tracker.tokens <= tokens
