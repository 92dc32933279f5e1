"""Budgets: what a step may use, what is kept for the last one, and what a run under a budget ends with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import BackendFailed, BudgetExceeded, DeadlineExceeded
from orchestration.messages import (
    Budget,
    ChatMessage,
    Finish,
    GuidedDecoding,
    Priority,
    Run,
    Sampling,
    TextDelta,
    Usage,
)
from orchestration.patterns import (
    GenerationRequest,
    PatternSettings,
    RunContext,
    StepOptions,
    StepResult,
    pattern,
)
from orchestration.patterns.base import StepAccepted
from orchestration.patterns.budget_tracker import Allowance, BudgetTracker
from orchestration.patterns.maestro import maestro
from orchestration.patterns.single import single
from tests.orchestration.patterns.scripted import (
    AGENTS,
    Scripted,
    counting_clock,
    make_context,
    make_run,
    perform,
    plan_json,
)


def question(
    words: int, max_tokens: int | None, *, name: str = "step", guided: bool = False
) -> GenerationRequest:
    return GenerationRequest(
        name=name,
        agent="research",
        messages=(ChatMessage(role="user", content="word " * words),),
        sampling=Sampling(max_tokens=max_tokens),
        guide=GuidedDecoding(json_schema={"type": "object"}) if guided else None,
        model=None,
        priority=Priority.INTERACTIVE,
        labels={},
    )


def spending(budget: Budget, final_tokens: int = 100) -> BudgetTracker:
    return BudgetTracker(budget, clock=lambda: 0.0, final_tokens=final_tokens)


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[GenerationRequest, int, float, bool]]:
    """Questions, how much longer their prompts are than estimated, which part of what they may write they
    write, and whether another one begins before they end."""
    made = st.tuples(
        st.builds(question, st.integers(0, 200), st.none() | st.integers(1, 400), guided=st.booleans()),
        st.integers(-50, 50),
        st.floats(0, 1),
        st.booleans(),
    )
    return draw(st.lists(made, max_size=12))


@given(st.integers(1, 3_000), st.integers(1, 8), st.integers(1, 400), steps())
def test_no_order_of_steps_uses_more_than_the_budget_but_for_what_prompts_were_longer_than_estimated(
    tokens: int, calls: int, final_tokens: int, asked: list[tuple[GenerationRequest, int, float, bool]]
) -> None:
    account = spending(Budget(tokens=tokens, calls=calls), final_tokens)
    used = begun = error = 0
    at_work: list[tuple[GenerationRequest, Allowance, int, float]] = []

    def end_all() -> None:
        nonlocal used, error
        for each, grant, longer, share in at_work:
            assert grant.max_tokens is not None
            read = max(0, grant.prompt + longer)
            wrote = int(grant.max_tokens * share)
            error += max(0, read - grant.prompt)
            used += read + wrote
            account.end(each, grant, Usage(prompt_tokens=read, completion_tokens=wrote))
        at_work.clear()

    for number, (each, longer, share, beside) in enumerate(asked):
        try:
            grant = account.begin(each, last=number == len(asked) - 1)
        except BudgetExceeded:
            end_all()
            continue
        begun += 1
        at_work.append((each, grant, longer, share))
        if not beside:
            end_all()
    end_all()
    assert begun == account.calls <= calls
    assert used == account.tokens <= tokens + error


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(calls=2), "would be call 2 of a budget of 2 calls: 1 used, and the last is reserved"),
        (Budget(tokens=800), "of the budget of 800 tokens, 400 are used and 200 are reserved for the answer"),
        (Budget(seconds=9), "of the budget of 9 seconds are used and 3.0 s are reserved for the answer"),
    ],
)
def test_a_step_that_cannot_be_afforded_says_which_limit_what_is_used_and_what_it_asks(
    budget: Budget, said: str
) -> None:
    now = [0.0]
    account = BudgetTracker(budget, clock=lambda: now[0], final_tokens=100)
    first = question(5, 100)
    account.end(first, account.begin(first, last=False), Usage(prompt_tokens=350, completion_tokens=50))
    now[0] = 6.0
    with pytest.raises(BudgetExceeded, match=said) as caught:
        account.begin(question(5, 100, name="second"), last=False)
    assert "'second'" in caught.value.message
    assert account.left_out == ["second"]
    assert account.begin(question(5, 100), last=True).max_tokens  # which was kept


def test_steps_at_work_together_hold_what_they_may_use() -> None:
    account = spending(Budget(tokens=1_000), final_tokens=100)
    grants = [account.begin(question(0, 300), last=False) for _ in range(2)]
    assert [grant.max_tokens for grant in grants] == [300, 300]
    with pytest.raises(BudgetExceeded):
        account.begin(question(0, 300, guided=True), last=False)
    for grant in grants:
        account.end(question(0, 300), grant, Usage(prompt_tokens=10, completion_tokens=10))
    assert account.begin(question(0, 300), last=False).max_tokens == 300


def test_a_step_is_kept_short_and_a_guided_one_is_not_begun_where_half_of_it_would_be_useless() -> None:
    budget = Budget(tokens=500)
    assert spending(budget).begin(question(0, 300), last=False).max_tokens == 228
    assert spending(budget).begin(question(0, 300, guided=True), last=False).max_tokens == 228
    with pytest.raises(BudgetExceeded):
        spending(budget).begin(question(0, 600, guided=True), last=False)
    roomy = spending(Budget(tokens=900)).begin(question(0, 4_000, guided=True), last=False)
    assert 320 <= (roomy.max_tokens or 0) < 900  # a large model's room is no need
    last = spending(budget).begin(question(0, 600, guided=True), last=True)
    assert last.max_tokens == 428


def test_an_agents_first_step_shows_how_long_its_role_prompt_is() -> None:
    account = spending(Budget(tokens=3_000))
    first = question(0, 100)
    grant = account.begin(first, last=False)
    account.end(first, grant, Usage(prompt_tokens=1_000, completion_tokens=10))
    assert account.begin(first, last=False).prompt == 1_000


def test_without_a_budget_nothing_is_bounded_but_by_the_deadline_which_leaves_time_for_the_answer() -> None:
    account = spending(Budget())
    grant = account.begin(question(5, None), last=False)
    assert (grant.max_tokens, grant.seconds) == (None, None)
    account.deadline_s = 30.0
    assert account.begin(question(5, None), last=False).seconds == 20.0
    assert account.begin(question(5, None), last=True).seconds is None  # it ends with the deadline's error
    assert account.account() == {}
    assert account.note() == ""


async def test_a_single_answer_is_as_long_as_the_budget_allows() -> None:
    ask = Scripted({})
    _, _, context = await perform(single, make_run("Why?", budget=Budget(tokens=200)), ask)
    await context.settle()
    granted = ask.question("answer").sampling.max_tokens
    assert granted is not None
    assert 100 < granted < 130
    assert context.report["budget"]["tokens"] == {"used": 13, "limit": 200}
    assert context.notes == ["to stay within 200 tokens: answer kept short"]


async def test_a_question_that_is_longer_than_the_budget_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        BudgetExceeded, match=r"about \d+ tokens to read and 384 to write.*the budget of 100 tokens"
    ):
        await perform(single, make_run("word " * 500, budget=Budget(tokens=100)), Scripted({}))


@pytest.mark.parametrize("calls", range(1, 7))
async def test_maestro_makes_do_with_the_calls_it_has(calls: int) -> None:
    plan = plan_json(("research", "read", 1), ("code", "write", 1))
    ask = Scripted({"plan": plan})
    text, answer, context = await perform(maestro, make_run(budget=Budget(calls=calls)), ask)
    await context.settle()
    assert text == answer.text != ""
    assert len(ask.asked) <= calls
    used = context.report["budget"]["calls"]
    assert used == {"used": len(ask.asked), "limit": calls}
    assert len(ask.asked) == calls or calls > 4
    assert any("to stay within" in note for note in context.notes) or calls > 4


class Slow(Scripted):
    """Says three words and no more: its time runs out, by `now`."""

    now = 0.0

    async def generate(
        self, question: GenerationRequest
    ) -> AsyncGenerator[StepAccepted | TextDelta | Finish, None]:
        for word in ("one", " two", " three"):
            yield TextDelta(text=word)
        assert question.seconds is not None
        self.now += question.seconds
        raise DeadlineExceeded("too late")


async def test_an_answer_that_the_budgets_seconds_end_is_what_came_until_then() -> None:
    ask = Slow({})
    run = make_run(budget=Budget(seconds=30))
    context = make_context(run, ask, agents=AGENTS, clock=lambda: ask.now)
    async with aclosing(single(run, context)) as items:
        said = [item async for item in items]
    await context.settle()
    answer = said[-1]
    assert isinstance(answer, StepResult)
    assert (answer.text, answer.finish.reason) == ("one two three", "length")
    assert answer.finish.usage.completion_tokens == 3
    assert context.notes == ["to stay within 30 seconds: answer kept short"]


async def test_an_inner_step_that_the_budgets_seconds_end_is_left_out() -> None:
    ask = Slow({})
    run = make_run(budget=Budget(seconds=30))
    context = make_context(run, ask, agents=AGENTS, clock=lambda: ask.now)
    with pytest.raises(
        BudgetExceeded, match=r"'inner' was cut off after 20\.0 s of the budget of 30 seconds"
    ):
        await context.ask("research", run.messages, name="inner")
    assert context.steps[0].error is not None
    assert context.steps[0].error.code == "budget_exceeded"
    assert context.budget.account()["left_out"] == ["inner"]


async def test_a_deadline_that_is_not_the_budgets_is_the_steps_own_error() -> None:
    ask = Scripted({"research": DeadlineExceeded("the node was late")})
    run = make_run(budget=Budget(seconds=1_000))
    context = make_context(run, ask, agents=AGENTS, clock=counting_clock())
    with pytest.raises(DeadlineExceeded, match="the node was late"):
        await context.ask("research", run.messages, name="inner")


async def test_what_happens_in_a_run_is_told_with_what_each_step_came_after() -> None:
    @pattern("chain")
    async def chain(
        run: Run, context: RunContext, settings: PatternSettings
    ) -> AsyncGenerator[TextDelta | StepResult, None]:
        """Two and two at once, then one that names what it builds on."""
        for names in (("a", "b"), ("c", "d")):
            async with asyncio.TaskGroup() as tasks:
                for name in names:
                    tasks.create_task(context.ask("research", run.messages, name=name))
        await context.event("tally", winner="c")
        with pytest.raises(BackendFailed):
            await context.ask("code", run.messages, name="e", options=StepOptions(after=("c",)))
        await context.warn("one voice is missing")
        async for item in context.stream(
            "coordinator", run.messages, name="answer", options=StepOptions(model="big")
        ):
            yield item

    first_two, next_two = asyncio.Barrier(2), asyncio.Barrier(2)
    meet = {"a": first_two, "b": first_two, "c": next_two, "d": next_two}
    ask = Scripted({"e": BackendFailed("broken")}, meet=meet)
    await perform(chain, make_run(), ask)
    after = {data["step"]: set(data["after"]) for kind, data in ask.happened if kind == "step_started"}
    first = {"a", "b"}
    assert after == {"a": set(), "b": set(), "c": first, "d": first, "e": {"c"}, "answer": {"e"}}
    kinds = [kind for kind, _ in ask.happened]
    both = ["step_started"] * 2 + ["step_ended"] * 2
    one = ["step_started", "step_ended"]
    assert kinds == [*both, *both, "tally", *one, "warning", *one]
    ended = [data["step"] for kind, data in ask.happened if kind == "step_ended"]
    assert [step.name for step in ended if step.error] == ["e"]
