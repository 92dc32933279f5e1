"""What a small model is asked to read, and which of its readings count."""

from __future__ import annotations

from orchestration.errors import BackendFailed
from orchestration.messages import Budget, GuidedDecoding, ModelCard
from orchestration.patterns import RunContext
from orchestration.patterns.consensus import AnswerKind
from orchestration.patterns.voting.extraction import extract_keys
from tests.orchestration.patterns.scripted import (
    AGENTS,
    Script,
    Scripted,
    counting_clock,
    make_context,
    make_run,
)

GAS = "Which gas is green?\n(A) argon\n(B) neon\n(C) chlorine"
MODELS = (
    ModelCard(name="large", parameters=70_000_000_000),
    ModelCard(name="small", parameters=1_000_000_000),
    ModelCard(name="unknown"),
)


def stage_of(script: Script, **fields: object) -> tuple[RunContext, Scripted]:
    ask = Scripted(script)
    return make_context(make_run(**fields), ask, agents=AGENTS, clock=counting_clock(), models=MODELS), ask  # type: ignore[arg-type]


async def test_the_smallest_model_reads_the_option_of_an_answer_guided_and_without_the_question() -> None:
    context, ask = stage_of({"reading 2": "C", "reading 3": "none"})
    texts = {2: "Green it is, the one with seventeen protons: chlorine, or so", 3: "Well, (A), or is it (B)?"}
    assert await extract_keys(context, AnswerKind.CHOICE, GAS, texts) == {2: "C"}
    asked = ask.question("reading 2")
    assert (asked.model, asked.sampling.temperature) == ("small", 0)
    assert asked.guide == GuidedDecoding(choice=("A", "B", "C", "none"))
    assert "chlorine, or so" in asked.messages[-1].content
    assert all("Which gas" not in message.content for message in asked.messages)


async def test_a_value_that_is_not_in_the_text_is_not_believed() -> None:
    context, _ = stage_of({"reading 1": '{"answer": "12"}', "reading 2": '{"answer": "7"}', "reading 3": "7"})
    texts = {1: "three and four are 7 then", 2: "three and four are 7 then, so it seems", 3: "are 7 then"}
    assert await extract_keys(context, AnswerKind.NUMBER, "How many?", texts) == {2: "7"}


async def test_each_answer_is_read_once_in_a_run() -> None:
    context, ask = stage_of({"reading 1": '{"answer": "7"}'})
    for _ in range(2):
        assert await extract_keys(context, AnswerKind.NUMBER, "How many?", {1: "so they are 7 or so"}) == {
            1: "7"
        }
    assert len(ask.asked) == 1


async def test_a_model_that_fails_and_a_budget_that_is_spent_read_nothing() -> None:
    context, _ = stage_of({"reading 1": BackendFailed("it broke")})
    assert await extract_keys(context, AnswerKind.NUMBER, "How many?", {1: "so they are 7 or so"}) == {}
    context, ask = stage_of({}, budget=Budget(tokens=10))
    assert await extract_keys(context, AnswerKind.NUMBER, "How many?", {1: "so they are 7 or so"}) == {}
    assert ask.asked == []


async def test_the_run_s_own_model_reads_answers_and_free_text_is_not_read() -> None:
    context, ask = stage_of({"reading 1": '{"answer": "7"}'}, model="large")
    assert await extract_keys(context, AnswerKind.NUMBER, "How many?", {1: "so they are 7 or so"}) == {1: "7"}
    assert ask.asked[0].model == "large"
    assert await extract_keys(context, AnswerKind.TEXT, "Why?", {2: "since it is"}) == {}
