"""The first chunk of a chat's stream, whatever comes first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.openai_api.chat import ChatEncoder
from actors.openai_api.completion import CompletionEncoder
from orchestration.messages import (
    Finish,
    GenerationEnd,
    Progress,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    ToolCall,
    TopLogprob,
)

PROGRESS = Progress(text="analysing")
TEXT = TextDelta(text="Hi")
ENDED = GenerationEnd(finish=Finish(reason="stop"))
CALLED = ENDED.model_copy(update={"calls": (ToolCall(id="1", name="f", arguments="{}"),)})
EMPTY: dict[str, Any] = {"role": "assistant", "content": ""}


def deltas(events: list[StreamEvent], *, opened: bool) -> list[dict[str, Any]]:
    encoder = ChatEncoder("a.1", "m", 0, include_usage=False, logprobs=False)
    pieces = [*encoder.encode_opening()] if opened else []
    pieces += [chunk for event in events for chunk in encoder.encode_event(event)]
    return [json.loads(chunk)["choices"][0]["delta"] for chunk in pieces]


@pytest.mark.parametrize(
    ("events", "opened", "first"),
    [
        ([PROGRESS, PROGRESS, TEXT, ENDED], False, EMPTY),
        ([TEXT, PROGRESS, ENDED], False, {"role": "assistant", "content": "Hi"}),
        ([PROGRESS, ENDED], True, EMPTY),
        ([PROGRESS, CALLED], False, EMPTY),
        ([ENDED], False, EMPTY),
    ],
)
def test_the_first_chunk_has_the_role_and_no_other_has(
    events: list[StreamEvent], opened: bool, first: dict[str, Any]
) -> None:
    found = deltas(events, opened=opened)
    assert found[0] == first
    assert not any("role" in delta for delta in found[1:])


@pytest.mark.parametrize("kind", [ChatEncoder, CompletionEncoder])
def test_a_whole_answer_holds_what_replaced_the_rest_and_a_stream_says_so(
    kind: type[ChatEncoder | CompletionEncoder],
) -> None:
    token = TokenLogprob(token="7", logprob=-0.5)
    events: list[StreamEvent] = [
        TextDelta(text="7", logprobs=(token,)),
        TextDelta(text="\n\nCorrection: 8", replaces=14),
        TextDelta(text=", I think", logprobs=(token,)),
        ENDED,
    ]
    streamed, full = (kind("a.1", "m", 0, include_usage=False, logprobs=True) for _ in range(2))
    pieces = [json.loads(chunk) for event in events for chunk in streamed.encode_event(event)]
    for event in events:
        full.add(event)
    choice = json.loads(full.encode_full())["choices"][0]
    assert choice.get("text", choice.get("message", {}).get("content")) == "8, I think"
    assert len(choice["logprobs"].get("content") or choice["logprobs"]["tokens"]) == 1
    assert [chunk.get("orchestra", {}).get("replaces") for chunk in pieces] == [
        None,
        14,
        None,
        None,
    ]
    assert "Correction: 8" in json.dumps(pieces[1])


def test_the_sampled_token_is_among_the_top_of_a_completion_even_if_it_is_none_of_them() -> None:
    encoder = CompletionEncoder("a.1", "m", 0, include_usage=False, logprobs=True)
    likely = TopLogprob(token=" the", logprob=-0.1)
    drawn = TokenLogprob(token=" a", logprob=-3.0, top_logprobs=(likely,))
    bare = TokenLogprob(token=" b", logprob=-2.0)
    encoder.add(TextDelta(text=" a b", logprobs=(drawn, bare)))
    encoder.add(ENDED)
    logprobs = json.loads(encoder.encode_full())["choices"][0]["logprobs"]
    assert logprobs["top_logprobs"] == [{" the": -0.1, " a": -3.0}, {" b": -2.0}]
