"""Patterns by name, and `single`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import Defect, InvalidRequest, UnknownModel
from orchestration.messages import ChatMessage, Sampling
from orchestration.patterns import PATTERNS, Outcome, find_pattern, pattern_name, virtual_models
from orchestration.patterns.clipping import clip, clip_end, estimate_tokens
from orchestration.patterns.single import single
from tests.patterns.scripted import Scripted, make_run, perform


def test_an_unknown_pattern_is_an_unknown_model_and_the_known_ones_are_named() -> None:
    with pytest.raises(UnknownModel) as caught:
        find_pattern("quartet")
    assert caught.value.param == "model"
    for name in virtual_models():
        assert name in caught.value.message
    assert "orchestra/quartet" in caught.value.message


def test_virtual_models_are_told_from_real_ones() -> None:
    assert pattern_name("orchestra/maestro") == "maestro"
    assert pattern_name("smollm2-135m") is None
    assert [pattern_name(name) for name in virtual_models()] == sorted(PATTERNS)


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


@pytest.mark.parametrize("name", sorted(PATTERNS))
async def test_every_pattern_refuses_a_conversation_without_a_question(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await perform(PATTERNS[name], make_run("  \n"), Scripted({}))
    assert caught.value.param == "messages"


async def test_a_step_without_an_outcome_is_a_defect_and_recorded() -> None:
    class Mute(Scripted):
        async def generate(self, question):  # type: ignore[no-untyped-def]
            async for item in super().generate(question):
                if not isinstance(item, Outcome):
                    yield item

    ask = Mute({})
    with pytest.raises(Defect):
        await perform(single, make_run(), ask)
    assert ask.told[0].error is not None
    assert ask.told[0].text == "words of wisdom"


@given(st.text(), st.integers(0, 200))
def test_clipped_text_is_within_its_bound_and_says_what_is_missing(text: str, tokens: int) -> None:
    for cut in (clip(text, tokens), clip_end(text, tokens)):
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
    assert clip_end("start " + "middle " * 500 + "end", 60).endswith("middle end")
