"""Patterns by name, and `single`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import InternalError, InvalidRequest, UnknownModel
from orchestration.messages import ChatMessage, Finish, Run, Sampling, TextDelta
from orchestration.patterns import (
    BUILT_IN,
    BrokenPlugin,
    NameTaken,
    Pattern,
    PatternSettings,
    RunContext,
    StepResult,
    pattern,
)
from orchestration.patterns.clipping import clip, estimate_tokens
from orchestration.patterns.single import single
from orchestration.virtual_models import pattern_name
from tests.orchestration.patterns.scripted import Scripted, make_run, perform


class Named(PatternSettings):
    name: str = "nobody"


@pattern("greeting", settings=Named)
async def greeting(
    run: Run, context: RunContext, settings: Named
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """Greets. Further words are not for lists."""
    async for item in single(run, context):
        yield item


def test_an_unknown_pattern_is_an_unknown_model_and_the_known_ones_are_named() -> None:
    with pytest.raises(UnknownModel) as caught:
        BUILT_IN.find("quartet", ["smollm2-135m"])
    assert caught.value.param == "model"
    for name in (*BUILT_IN.virtual_models, "smollm2-135m"):
        assert name in caught.value.message
    assert "orchestra/quartet" in caught.value.message


def test_virtual_models_are_told_from_real_ones() -> None:
    assert pattern_name("orchestra/maestro") == "maestro"
    assert pattern_name("smollm2-135m") is None
    assert [pattern_name(name) for name in BUILT_IN.virtual_models] == sorted(BUILT_IN) == list(BUILT_IN)


def test_a_catalogue_with_one_more_pattern_leaves_the_first_as_it_was() -> None:
    more = BUILT_IN.plus(greeting, "mine.py")
    assert more.find("greeting") is greeting
    assert (more.origin("greeting"), more.origin("single")) == ("mine.py", "built-in")
    assert greeting.description == "Greets"
    assert set(more) - set(BUILT_IN) == {"greeting"}
    assert list(more) == sorted(more)


def test_a_name_is_given_once_and_never_that_of_a_built_in_pattern() -> None:
    more = BUILT_IN.plus(greeting, "mine.py")
    with pytest.raises(NameTaken, match=r"'greeting' is taken by the one of mine\.py"):
        more.plus(greeting, "theirs.py")
    with pytest.raises(NameTaken, match="'single' is taken by a pattern of Orchestra's own"):
        BUILT_IN.plus(replace(greeting, name="single"), "mine.py")


def test_a_pattern_that_cannot_be_used_says_why_and_never_hides_one_that_can() -> None:
    broken = BrokenPlugin(("quartet", "single"), "mine.py", "no cellist")
    catalogue = BUILT_IN.without(broken)
    with pytest.raises(UnknownModel, match=r"'quartet' of mine\.py cannot be used: no cellist"):
        catalogue.find("quartet")
    assert catalogue.find("single") is single
    assert "orchestra/quartet" not in catalogue.virtual_models


class Needy(PatternSettings):
    voters: int
    pitch: float = 440.0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "No Name"}, "invalid pattern name 'No Name'"),
        ({"settings": Needy}, "'greeting' without a default: voters"),
        ({"settings": dict}, "must be a subclass of PatternSettings"),
        ({"perform": print}, "must be an async function that yields"),
    ],
)
def test_what_can_be_no_pattern_is_refused_where_it_is_written(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replace(greeting, **change)


@pytest.mark.parametrize("known", BUILT_IN.values(), ids=lambda known: known.name)
def test_every_pattern_says_what_it_does_and_its_settings_have_a_schema(known: Pattern) -> None:
    assert known.description
    assert known.settings.model_json_schema()["additionalProperties"] is False


async def test_single_passes_the_conversation_whole_and_the_callers_sampling() -> None:
    messages = (
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content="x" * 50_000),
    )
    ask = Scripted({})
    await perform(single, make_run(messages=messages, sampling=Sampling(top_p=0.5)), ask)
    (question,) = ask.asked
    assert question.messages == messages
    assert question.sampling.top_p == 0.5
    assert question.sampling.max_tokens == 384


@pytest.mark.parametrize("name", sorted(BUILT_IN))
async def test_every_pattern_refuses_a_conversation_without_a_question(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await perform(BUILT_IN[name], make_run("  \n"), Scripted({}))
    assert caught.value.param == "messages"


async def test_a_step_without_an_outcome_is_a_defect_and_recorded() -> None:
    class Mute(Scripted):
        async def generate(self, question):  # type: ignore[no-untyped-def]
            async for item in super().generate(question):
                if not isinstance(item, Finish):
                    yield item

    ask = Mute({})
    with pytest.raises(InternalError):
        await perform(single, make_run(), ask)
    assert ask.told[0].error is not None
    assert ask.told[0].text == "words of wisdom"


@given(st.text(), st.integers(0, 200))
def test_clipped_text_is_within_its_bound_and_says_what_is_missing(text: str, tokens: int) -> None:
    cut = clip(text, tokens)
    if estimate_tokens(text.strip()) <= tokens:
        assert cut == text.strip()
    else:
        assert "characters left out" in cut
        assert estimate_tokens(cut) <= tokens + estimate_tokens(" […99999 characters left out…] ")


@given(st.text(min_size=1), st.text(min_size=1))
def test_estimates_add_up_and_never_vanish(one: str, two: str) -> None:
    assert estimate_tokens(one) > 0
    assert estimate_tokens(one + two) == pytest.approx(estimate_tokens(one) + estimate_tokens(two))


def test_clipping_keeps_the_beginning_and_the_end() -> None:
    cut = clip("start " + "middle " * 500 + "end", 60)
    assert cut.startswith("start middle")
    assert cut.endswith("middle end")
