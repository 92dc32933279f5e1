"""What a pattern does where a model recites our prompts or says the same again and again."""

from __future__ import annotations

import pytest

from orchestration.messages import ChatMessage, GuidedDecoding
from orchestration.patterns import BUILT_IN
from orchestration.patterns.answer_repair import CORRECTION
from orchestration.patterns.clipping import clip
from orchestration.patterns.prompt_texts import TEA_TASKS, WHOLE_QUESTION
from tests.orchestration.patterns.graphs import graph_json
from tests.orchestration.patterns.scripted import Scripted, make_run, perform, plan_json

SUM = "What is 12 + 30?"
GUESSED = graph_json(*((n, "research", f"The answer is {10 * n}", []) for n in (1, 2, 3)))
COPIED = graph_json(*((n, "research", task, []) for n, task in enumerate(TEA_TASKS, 1)))
TEAM = {"plan": plan_json(("reasoning", "add the two numbers", 1)), "reasoning": "12 + 30 = 42"}
LOOP = "The result of the sum must be stated. " * 30
REVIEW = (
    '{"must_fix": [{"who": "reasoning", "what": "State the result of the sum clearly"}], '
    '"scores": {"correct": 9}, "verdict": "pass"}'
)
ANALYSIS = '{"asked": "The sum.", "criteria": ["names the right number", "shows how it comes about"]}'


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("decompose", COPIED),
        ("decompose", GUESSED),
        ("maestro", plan_json(*(("code", task, 1) for task in TEA_TASKS))),
    ],
)
async def test_who_gets_an_examples_task_or_a_guess_answers_the_question_itself(name: str, plan: str) -> None:
    ask = Scripted({"plan": plan, "task 1": "42", "code": "42", "synthesis": "It is 42."})
    text, _, _ = await perform(BUILT_IN[name], make_run(SUM), ask)
    assert text == "It is 42."
    (worked,) = (question for question in ask.asked if question.agent in ("research", "code"))
    assert f"Your task: {WHOLE_QUESTION}" in worked.messages[-1].content
    assert not any("caffeine" in each.messages[-1].content for each in ask.asked)


async def test_the_example_is_a_plan_for_whoever_asks_its_question() -> None:
    ask = Scripted({"plan": COPIED, "synthesis": "Weigh tea against coffee for a bad sleeper, and tea wins."})
    text, _, context = await perform(BUILT_IN["decompose"], make_run("Tea or coffee before bed?"), ask)
    assert text.endswith("tea wins.")
    assert "plan again" not in {step.name for step in context.steps}


@pytest.mark.parametrize(
    "bad",
    [
        TEA_TASKS[2],
        LOOP,
        clip("42, as is easily seen. " * 40, 30),
        "Names the right number; shows how it comes about.",
    ],
    ids=["the example", "a loop", "a mark", "a criterion"],
)
@pytest.mark.parametrize("again", ["It is 42.", TEA_TASKS[2]], ids=["repaired", "not repaired"])
async def test_an_answer_that_is_none_is_written_again_and_else_a_specialist_has_the_word(
    bad: str, again: str
) -> None:
    script = TEAM | {"analysis": ANALYSIS, "review": REVIEW, "synthesis": bad, "synthesis again": again}
    text, answer, context = await perform(BUILT_IN["maestro"], make_run(SUM), Scripted(script))
    assert (
        answer.text == text.rpartition(CORRECTION)[2] == ("12 + 30 = 42" if again == TEA_TASKS[2] else again)
    )
    assert "Weigh tea" not in text
    assert "left out…" not in text
    assert text.count("must be stated") < 2
    assert any(note.startswith("an answer was left out: it ") for note in context.notes)
    assert ("this is what reasoning found" in context.notes) == (again == TEA_TASKS[2])


async def test_what_came_before_the_problem_stands_and_is_corrected() -> None:
    script = TEAM | {"synthesis": f"Let me think about it. {TEA_TASKS[2]}", "synthesis again": "It is 42."}
    text, answer, _ = await perform(BUILT_IN["maestro"], make_run(SUM), Scripted(script))
    assert text == f"Let me think about it.{CORRECTION}It is 42."
    assert answer.text == "It is 42."  # what an answer that is not streamed holds


async def test_a_text_of_a_fixed_form_is_replaced_whole() -> None:
    guide = GuidedDecoding(json_schema={"type": "object"})
    script = TEAM | {"synthesis": f'{{"answer": "{TEA_TASKS[2]}"}}', "synthesis again": '{"answer": "42"}'}
    text, _, _ = await perform(BUILT_IN["maestro"], make_run(SUM, guide=guide), Scripted(script))
    assert text == '{"answer": "42"}'


@pytest.mark.parametrize("name", ["reasoning", "code"])
async def test_a_specialist_alone_writes_again_what_is_no_answer(name: str) -> None:
    ask = Scripted({"answer": LOOP, "answer again": "It is 42."})
    text, _, _ = await perform(BUILT_IN[name], make_run(SUM), ask)
    assert text == "It is 42."
    assert (ask.question("answer again").sampling.repetition_penalty or 0) > 1


async def test_what_the_caller_wants_repeated_is_left_as_it_is() -> None:
    wish = "Write 'The result of the sum must be stated' thirty times."
    run = make_run(messages=(ChatMessage(role="user", content=wish),))
    text, _, context = await perform(BUILT_IN["maestro"], run, Scripted(TEAM | {"synthesis": LOOP}))
    assert text == LOOP
    assert "synthesis again" not in {step.name for step in context.steps}
