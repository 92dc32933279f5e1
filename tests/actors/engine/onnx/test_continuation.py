"""Answers that another node began: the text so far comes as a prefix."""

from __future__ import annotations

import json

import pytest

from actors.engine.onnx_backend import OnnxBackend
from orchestration.messages import Continuation, Generation, GuidedDecoding
from tests.actors.engine.onnx.asking import Answer, ask, chat, complete

COUNT = "One, two, three, four,"
"""Its likeliest token leads by more than any rounding, which the test asserts."""
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}


def begun(generation: Generation, whole: Answer, pieces: int) -> Generation:
    """`generation` after a node has written the first `pieces` of `whole`."""
    written = whole.pieces[:pieces]
    return generation.model_copy(
        update={
            "continuation": Continuation(
                text="".join(piece.text for piece in written),
                tokens=sum(piece.tokens for piece in written),
            )
        }
    )


@pytest.mark.parametrize("pieces", [1, 3, 8])
async def test_an_answer_goes_on_after_any_of_its_tokens(backend: OnnxBackend, pieces: int) -> None:
    asked = complete(COUNT, max_tokens=12, logprobs=True, top_logprobs=2)
    whole = await ask(backend, asked)
    assert whole.sure == whole.text.encode(), whole.leads
    rest = await ask(backend, begun(asked, whole, pieces))
    assert "".join(piece.text for piece in whole.pieces[:pieces]) + rest.text == whole.text
    assert rest.finish.reason == whole.finish.reason
    assert rest.finish.usage.completion_tokens == whole.finish.usage.completion_tokens
    assert rest.finish.usage.prompt_tokens == whole.finish.usage.prompt_tokens


async def test_a_chat_goes_on_in_the_turn_of_the_assistant(backend: OnnxBackend) -> None:
    asked = chat("Which city is the capital of France?")
    whole = await ask(backend, asked)
    rest = await ask(backend, begun(asked, whole, 3))
    assert rest.finish.usage.prompt_tokens == whole.finish.usage.prompt_tokens
    assert rest.finish.reason == "stop"


@pytest.mark.parametrize("pieces", [1, 2, 4, 6])
async def test_a_guide_goes_on_inside_what_it_has_begun(backend: OnnxBackend, pieces: int) -> None:
    asked = chat("Describe Paris as JSON.", guide=GuidedDecoding(json_schema=SCHEMA), max_tokens=60)
    whole = await ask(backend, asked)
    continued = begun(asked, whole, pieces)
    rest = await ask(backend, continued)
    assert json.loads(continued.prefix + rest.text).keys() == {"city", "large"}


async def test_an_answer_whose_guide_is_complete_only_ends(backend: OnnxBackend) -> None:
    asked = chat("Yes or no?", guide=GuidedDecoding(regex="(yes|no)"), max_tokens=20)
    whole = await ask(backend, asked)
    rest = await ask(backend, begun(asked, whole, len(whole.pieces)))
    assert (rest.text, rest.finish.reason) == ("", "stop")


async def test_a_stop_string_that_began_in_the_prefix_stops(backend: OnnxBackend) -> None:
    asked = complete(COUNT, max_tokens=40, stop=("six, seven",))
    prefix = " five, six,"
    rest = await ask(backend, asked.model_copy(update={"continuation": Continuation(text=prefix, tokens=4)}))
    assert (rest.text, rest.finish.reason) == ("", "stop")
