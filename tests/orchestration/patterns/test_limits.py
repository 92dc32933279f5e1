"""Limits follow the context of the models that take part, and a note says what is clipped."""

from __future__ import annotations

import json

import pytest

from orchestration.messages import Budget, ChatMessage, ModelCard, Sampling
from orchestration.patterns import BUILT_IN, StepLimits
from orchestration.patterns.clipping import estimate_tokens
from orchestration.patterns.limits import CHARS_PER_TOKEN
from tests.orchestration.patterns.graphs import graph_json
from tests.orchestration.patterns.scripted import Scripted, make_run, perform, plan_json

RAIN = "It rained on the harbour all day long. " * 400
DOCUMENT = f"The key is under the mat. {RAIN}Where is the key?"
"""Some 3,400 tokens for a model, and 5,100 by our estimate."""
SCRIPT = {
    "maestro": {"plan": plan_json(("research", "look", 1), ("reasoning", "think", 1)), "synthesis": "It is"},
    "decompose": {"plan": graph_json((1, "research", "look", []), (2, "code", "think", [1]))},
    "debate": {
        "research": "under the mat",
        "reasoning": "beside the door of the old house",
        "synthesis": "under the mat",
    },
}


SMALL = 135_000_000


def card(name: str, context: int, parameters: int = 0) -> ModelCard:
    return ModelCard(name=name, context_tokens=context, parameters=parameters)


@pytest.mark.parametrize("name", list(SCRIPT))
async def test_a_document_that_fits_the_models_context_reaches_every_step_whole(name: str) -> None:
    ask = Scripted(SCRIPT[name])
    _, _, performed = await perform(BUILT_IN[name], make_run(DOCUMENT), ask, models=[card("m", 8192)])
    assert len(ask.asked) > 3
    for question in ask.asked:
        assert DOCUMENT in "".join(message.content for message in question.messages)
    assert not [note for note in performed.notes if "cut" in note]


@pytest.mark.parametrize("name", [*SCRIPT, "auto", "single"])
async def test_the_words_of_a_document_may_be_repeated_without_a_penalty_unless_the_caller_wants_one(
    name: str,
) -> None:
    """SmolLM2 quotes the code of a document at 1.0, and invents one at 1.05."""
    for text, said, penalty in (
        (DOCUMENT, None, 1.0),
        (DOCUMENT, 1.3, 1.3),
        ("Where is the key?", None, 1.05 if name == "auto" else None),
    ):
        ask = Scripted(SCRIPT.get(name, {}))
        run = make_run(text, sampling=Sampling(repetition_penalty=said))
        await perform(BUILT_IN[name], run, ask, models=[card("m", 8192, SMALL)])
        assert ask.asked[-1].sampling.repetition_penalty == penalty


@pytest.mark.parametrize("parameters", [0, 70_000_000_000])
@pytest.mark.parametrize("name", sorted({*BUILT_IN} - {"research"}))
async def test_a_model_that_is_not_known_to_be_small_gets_no_parameters_of_ours(
    name: str, parameters: int
) -> None:
    ask = Scripted(SCRIPT.get(name, {}))
    await perform(BUILT_IN[name], make_run(DOCUMENT), ask, models=[card("m", 32_768, parameters)])
    for question in ask.asked:
        assert question.sampling.repetition_penalty is None
        assert question.guide is not None or question.sampling.max_tokens is None, question.name
        assert "brief" not in "".join(message.content for message in question.messages)
    ask = Scripted(SCRIPT.get(name, {}))
    await perform(BUILT_IN[name], make_run(DOCUMENT), ask, models=[card("m", 32_768, SMALL)])
    for question in ask.asked:
        assert question.sampling.max_tokens, question.name
    if name in ("maestro", "decompose"):
        assert "briefly" in ask.question("task 1" if name == "decompose" else "research").messages[-1].content


async def test_a_small_model_of_a_panel_is_bounded_and_the_others_are_not() -> None:
    ask = Scripted({})
    models = [card("large", 32_768), card("small", 2048, SMALL)]
    _, _, performed = await perform(
        BUILT_IN["ensemble"], make_run(settings={"early": False}), ask, models=models
    )
    assert len(performed.steps) > 1
    bounds = {
        question.model: question.sampling.max_tokens for question in ask.asked if "voice" in question.name
    }
    assert bounds["small"] == StepLimits().final_tokens
    assert bounds["large"] is None


async def test_what_a_caller_a_deployment_or_a_budget_says_bounds_every_model() -> None:
    models = [card("m", 32_768)]
    ask = Scripted({})
    await perform(BUILT_IN["single"], make_run(), ask, models=models, limits=StepLimits(final_tokens=77))
    await perform(BUILT_IN["single"], make_run(sampling=Sampling(max_tokens=50)), ask, models=models)
    await perform(BUILT_IN["single"], make_run(budget=Budget(tokens=20_000)), ask, models=models)
    assert [question.sampling.max_tokens for question in ask.asked[:2]] == [77, 50]
    assert 19_000 < (ask.asked[2].sampling.max_tokens or 0) < 20_000


@pytest.mark.parametrize(("context", "tokens"), [(32_768, 2_000), (0, 1_000)])
async def test_a_long_solution_is_passed_on_whole_where_the_context_is_large(
    context: int, tokens: int
) -> None:
    solution = "".join(f"Step {number}: carry it over.\n" for number in range(tokens // 7)) + "It is 42."
    ask = Scripted(SCRIPT["maestro"] | {"research": solution, "reasoning": solution})
    _, _, performed = await perform(BUILT_IN["maestro"], make_run(), ask, models=[card("m", context)])
    assert solution in ask.question("synthesis").messages[-1].content
    assert not [note for note in performed.notes if "cut" in note]


@pytest.mark.parametrize("name", list(SCRIPT))
async def test_a_text_that_does_not_fit_keeps_its_beginning_and_end_with_a_note(name: str) -> None:
    ask = Scripted(SCRIPT[name])
    models = [card("m", 8192), card("small", 2048)]
    _, _, performed = await perform(BUILT_IN[name], make_run(DOCUMENT), ask, models=models)
    for question in ask.asked:
        text = "".join(message.content for message in question.messages)
        assert "The key is under the mat." in text
        assert "Where is the key?" in text
    (note,) = (note for note in performed.notes if "the question had to be cut" in note)
    assert "2048" in note


async def test_the_model_that_the_caller_names_decides_and_not_another() -> None:
    ask = Scripted(SCRIPT["maestro"])
    models = [card("big", 32_768), card("small", 2048)]
    run = make_run(DOCUMENT, model="big")
    _, _, performed = await perform(BUILT_IN["maestro"], run, ask, models=models)
    assert performed.context_tokens == 32_768
    assert DOCUMENT in ask.question("plan").messages[-1].content
    assert performed.notes == []


@pytest.mark.parametrize("name", list(SCRIPT))
async def test_the_history_of_the_conversation_reaches_the_steps(name: str) -> None:
    turns = ["My name is Ada Lovelace. " + "I like long walks by the sea. " * 40, "Nice. " * 60, "Who am I?"]
    roles = ("user", "assistant", "user")
    messages = tuple(ChatMessage(role=r, content=t) for r, t in zip(roles, turns, strict=True))
    ask = Scripted(SCRIPT[name])
    await perform(BUILT_IN[name], make_run(messages=messages), ask, models=[card("m", 8192)])
    for question in ask.asked:
        assert "My name is Ada Lovelace." in "".join(message.content for message in question.messages)


@pytest.mark.parametrize("context", [2048, 8192])
@pytest.mark.parametrize("name", list(SCRIPT))
async def test_every_step_fits_the_context_however_long_the_texts_are(name: str, context: int) -> None:
    long = "".join(f"word{number} after{number}, " for number in range(context // 4))
    replies = dict.fromkeys(("research", "reasoning", "code", "task 1", "task 2", "synthesis"), long)
    remark = json.dumps(dict.fromkeys(("strengths", "weaknesses", "mine"), "x y " * 29))
    critiques = {f"round 2 / debater {n}: critique": remark for n in (1, 2, 3)}
    messages = tuple(ChatMessage(role="user", content=long) for _ in range(3))
    ask = Scripted(replies | SCRIPT[name] | replies | critiques)
    run = make_run(messages=messages)
    _, _, performed = await perform(BUILT_IN[name], run, ask, models=[card("m", context)])
    for question in ask.asked:
        inside = sum(estimate_tokens(message.content) for message in question.messages)
        assert inside + (question.sampling.max_tokens or 0) < context, question.name
    said = "; ".join(performed.notes)
    assert "the question had to be cut" in said
    assert "what was said before the question had to be cut" in said


def test_what_a_deployment_sets_stays_and_the_rest_follows_the_context() -> None:
    set_ = StepLimits(final_tokens=40, question_tokens=100)
    fitted = set_.for_context(32_768, conversation=50)
    assert (fitted.final_tokens, fitted.question_tokens) == (40, 100)
    assert fitted.passed_tokens > StepLimits().passed_tokens
    small = StepLimits().for_context(1024, conversation=50)
    assert small.conversation_tokens + small.passed_tokens * small.max_specialists + small.final_tokens < 1024
    assert StepLimits().for_context(2048, conversation=10_000) == StepLimits()


@pytest.mark.parametrize("max_tasks", [1, 3, 6, 16])
def test_texts_in_guided_forms_grow_with_the_context_and_fit_the_tokens_of_their_form(max_tasks: int) -> None:
    small, large = StepLimits(), StepLimits().for_context(32_768, conversation=50, small=False)
    known_small = StepLimits().for_context(32_768, conversation=50)
    for limits in (small, known_small):
        texts = (limits.fix_chars, limits.analysis_chars, limits.critique_chars)
        assert (limits.task_chars(max_tasks), *texts) == (120, 90, 120, 120)
    assert large.task_chars(max_tasks) > 4 * small.task_chars(max_tasks)
    assert max_tasks * large.task_chars(max_tasks) / CHARS_PER_TOKEN < large.plan_tokens
    assert large.fix_chars > 4 * small.fix_chars
    assert 3 * large.critique_chars / CHARS_PER_TOKEN < large.verdict_tokens
