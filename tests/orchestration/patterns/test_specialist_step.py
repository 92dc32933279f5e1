"""A specialist's step with tools: what the specialist gets, and how its answer is checked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestration.errors import NodeLost, NoNode, OrchestraError
from orchestration.messages import ChatMessage, GuidedDecoding, ToolResult
from orchestration.patterns import RunContext, StepOptions, StepResult
from orchestration.patterns.clipping import MARK
from orchestration.patterns.specialist_step import NUMBERS, cited, run_specialist_step
from orchestration.patterns.specialists import research
from tests.orchestration.patterns.scripted import (
    AGENTS,
    Scripted,
    counting_clock,
    make_context,
    make_run,
    perform,
)

QUESTION = (ChatMessage(role="user", content="When does the harbour open?"),)


def passage(text: str, heading: str = "Hours") -> dict[str, Any]:
    return {
        "document": "/docs/harbour.md",
        "title": "Harbour",
        "heading": heading,
        "passage": text,
        "similarity": 0.7,
        "score": 0.03,
    }


HARBOUR = ToolResult(
    data=[passage("The harbour opens at six in the morning."), passage("Dogs travel free.", "Animals")]
)


class WithoutVectors(Scripted):
    """No embedding model is to be had: words alone are compared, which a script can foresee."""

    async def embed(self, texts):  # type: ignore[no-untyped-def]
        raise NoNode("no embedding model")


def scripted(answer: str, result: ToolResult | OrchestraError = HARBOUR) -> Scripted:
    return WithoutVectors(
        {"find": answer, "answer": answer}, tool_results={"research": {"knowledge": result}}
    )


def stage_of(ask: Scripted) -> RunContext:
    return make_context(make_run(), ask, agents=AGENTS, clock=counting_clock())


async def find(ask: Scripted, **options: Any) -> tuple[StepResult, RunContext]:
    context = stage_of(ask)
    return await run_specialist_step(context, "research", QUESTION, name="find", **options), context


async def test_passages_are_found_before_the_answer_and_it_cites_what_supports_it() -> None:
    ask = scripted("The harbour opens at six. Dogs travel free [2].")
    answer, context = await find(ask)
    assert [step.name for step in context.steps] == ["find: knowledge", "find"]
    assert ask.used[0].arguments["query"] == "When does the harbour open?"
    prompt = ask.question("find").messages[-1].content
    assert "[1] Harbour › Hours\n> The harbour opens at six in the morning." in prompt
    assert prompt.endswith("When does the harbour open?")
    assert answer.text == "The harbour opens at six. [1] Dogs travel free [2]."
    assert context.report["sources"][0] == {
        "n": 1,
        "document": "/docs/harbour.md",
        "label": "Harbour › Hours",
        "passage": "The harbour opens at six in the morning.",
        "score": 0.7,
        "step": "find",
    }
    assert "unsupported" not in context.report


async def test_a_claim_without_support_and_a_number_that_no_source_has_are_said_below_the_answer() -> None:
    answer, context = await find(
        scripted("The harbour opens at six [1]. Whales sleep in the bay all winter [7].")
    )
    assert answer.text.endswith(
        "\n\n(not supported by the sources: “Whales sleep in the bay all winter.”; "
        "cites [7], which no source has)"
    )
    (claim,) = context.report["unsupported"]
    assert (claim["step"], claim["claim"]) == ("find", "Whales sleep in the bay all winter.")


async def test_a_long_claim_without_support_is_told_without_the_mark_of_a_clipped_text() -> None:
    answer, _ = await find(scripted(f"Whales sleep in the bay all winter{' and all summer' * 20}."))
    assert "(not supported by the sources: “Whales sleep in the bay" in answer.text
    assert not MARK.search(answer.text)


async def test_what_is_looked_up_can_be_said() -> None:
    ask = scripted("Six.")
    await find(ask, query="opening hours")
    assert ask.used[0].arguments["query"] == "opening hours"


async def test_an_agent_without_tools_answers_as_it_would_anyway() -> None:
    ask = Scripted({"find": "At six, I think."})
    answer, context = await find(ask)
    assert answer.text == "At six, I think."
    assert ask.question("find").messages == QUESTION
    assert not context.report.sections


@pytest.mark.parametrize(
    "result", [NodeLost("nobody answered"), ToolResult(error="broken"), ToolResult(data=[])]
)
async def test_tools_that_fail_or_find_nothing_leave_the_answer_as_it_is(
    result: ToolResult | OrchestraError,
) -> None:
    ask = scripted("At six, I think.", result)
    answer, _ = await find(ask)
    assert answer.text == "At six, I think."
    assert ask.question("find").messages == QUESTION


async def test_an_answer_whose_form_is_fixed_is_given_sources_and_left_as_it_is() -> None:
    ask = scripted('{"whales": "sleep in the bay all winter long"}')
    answer, _ = await find(ask, options=StepOptions(guide=GuidedDecoding(json_schema={"type": "object"})))
    assert answer.text == '{"whales": "sleep in the bay all winter long"}'
    assert "> The harbour opens" in ask.question("find").messages[-1].content


async def test_sources_of_steps_at_work_at_the_same_time_have_numbers_of_their_own() -> None:
    ask = scripted("Six.")
    context = stage_of(ask)
    async with asyncio.TaskGroup() as tasks:
        for name in ("one", "two"):
            tasks.create_task(run_specialist_step(context, "research", QUESTION, name=name))
    numbers = {
        name: [s["n"] for s in context.report["sources"] if s["step"] == name] for name in ("one", "two")
    }
    assert numbers == {"one": [1, 2], "two": [NUMBERS + 1, NUMBERS + 2]}
    assert f"[{NUMBERS + 1}] Harbour" in ask.question("two").messages[-1].content


def test_numbers_of_sources_are_read_however_they_are_listed() -> None:
    assert cited("One [1]. Two [2, 3] and [12]. Not [x] nor a[0] list.") == {0, 1, 2, 3, 12}


async def test_research_streams_its_answer_with_the_sources_and_what_they_do_not_say_below() -> None:
    ask = scripted("The harbour opens at six [1]. Whales sleep in the bay all winter.")
    text, answer, context = await perform(research, make_run(QUESTION[0].content), ask)
    assert text == answer.text
    assert text.endswith(
        "\n\nSources:\n[1] Harbour › Hours (/docs/harbour.md)\n"
        "(Not supported by the sources: “Whales sleep in the bay all winter.”.)"
    )
    assert context.notes == ["not supported by the sources: “Whales sleep in the bay all winter.”"]
    assert context.steps[-1].text == "The harbour opens at six [1]. Whales sleep in the bay all winter."
    assert ("grounding", {"step": "answer", "claims": 2, "unsupported": 1, "wrong": ()}) in ask.happened


async def test_small_talk_with_the_research_agent_is_answered_without_a_source() -> None:
    text, _, context = await perform(
        research, make_run("Who are you?"), Scripted({"answer": "A researcher."})
    )
    assert text == "A researcher."
    assert context.notes == ["no source was found for this question"]


async def test_research_without_a_source_says_so_and_what_can_be_done_and_invents_nothing() -> None:
    ask = Scripted({"answer": "The axolotl has nine hearts."})
    text, answer, context = await perform(research, make_run("What of sample 7?"), ask)
    assert text == answer.text
    assert text.startswith("No source was found for this question")
    assert "orchestra knowledge add" in text
    assert ask.asked == []
    assert context.notes == ["no source was found for this question"]
