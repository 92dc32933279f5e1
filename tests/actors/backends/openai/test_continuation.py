"""An answer that another node began, gone on with by an upstream: its reader sees one text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.backends.base import KEEP_ALIVE
from actors.backends.openai import OpenAISettings
from actors.backends.openai.continuation import (
    ContinuationFilter,
    ContinuationMethod,
    TextMismatch,
    continuation_methods,
    continuation_request,
    detect_prefill,
)
from orchestration.errors import CannotContinue, InvalidRequest
from orchestration.messages import (
    ChatMessage,
    CompletionGeneration,
    Continuation,
    Finish,
    GuidedDecoding,
    Sampling,
    TextDelta,
    Tool,
    ToolOffer,
    Usage,
)
from tests.fixtures.scripted import CHAT, DONE, backend_before, once, stream, whole
from tests.fixtures.upstream import Request, Script, delta, event, response

BEGUN = CHAT.model_copy(
    update={"continuation": Continuation(text="One, two, ", tokens=4), "sampling": Sampling(max_tokens=9)}
)
PROMPT = [{"role": "user", "content": "hello"}]
TURN = [*PROMPT, {"role": "assistant", "content": "One, two,"}]


def answer(*texts: str, prompt: int = 7, tokens: int = 5) -> Script:
    usage = {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": tokens}}
    return stream(*(event(delta(text)) for text in texts), event(delta(None, "stop")), event(usage), DONE)


def by_last_role(user: Script, assistant: Script) -> Script:
    """The one for a request from its beginning, the other for one after an assistant's message."""

    def script(request: Request) -> AsyncIterator[bytes]:
        return (assistant if request.body["messages"][-1]["role"] == "assistant" else user)(request)

    return script


async def test_a_server_that_continues_a_message_goes_on_from_the_text_so_far() -> None:
    script = answer(" three", ", four", prompt=11, tokens=2)
    async with backend_before(script, continues="continue_final_message") as (backend, upstream):
        text, finish = await whole(backend, BEGUN)
    assert text == "three, four"
    assert finish.usage == Usage(prompt_tokens=7, completion_tokens=6)
    (asked,) = upstream.requests
    assert asked.body["messages"] == TURN
    assert asked.body["continue_final_message"] is True
    assert asked.body["max_tokens"] == 5


async def test_a_server_that_writes_the_same_again_is_read_from_where_its_reader_is() -> None:
    async with backend_before(answer("One,", " two", ", three,", " four")) as (backend, upstream):
        text, finish = await whole(backend, BEGUN)
    assert text == "three, four"
    assert finish.usage == Usage(prompt_tokens=7, completion_tokens=5)
    (asked,) = upstream.requests
    assert asked.body["messages"] == PROMPT
    assert asked.body["max_tokens"] == 9


@pytest.mark.parametrize("continued", [("three, four",), (" three", ", four"), ("One, two, ", "three, four")])
async def test_a_server_that_writes_another_text_goes_on_in_the_next_turn(continued: tuple[str, ...]) -> None:
    script = by_last_role(user=answer("One ", "and two"), assistant=answer(*continued, prompt=11))
    async with backend_before(script) as (backend, upstream):
        text, finish = await whole(backend, BEGUN)
    assert text == "three, four"
    assert finish.usage == Usage(prompt_tokens=7, completion_tokens=9)
    assert [asked.body["messages"] for asked in upstream.requests] == [PROMPT, TURN]


async def test_an_answer_that_ends_sooner_than_what_was_sent_is_another_text() -> None:
    script = by_last_role(user=answer("One, "), assistant=answer("three"))
    async with backend_before(script) as (backend, _):
        assert (await whole(backend, BEGUN))[0] == "three"


async def test_where_only_the_end_was_missing_only_the_end_comes() -> None:
    async with backend_before(answer("One, two,")) as (backend, upstream):
        text, finish = await whole(backend, BEGUN)
    assert (text, finish.reason, len(upstream.requests)) == ("", "stop", 1)


async def test_a_server_that_refuses_to_continue_a_message_is_not_asked_to_again() -> None:
    refusal = once(response(400, {"error": {"message": "unknown field continue_final_message"}}))
    script = by_last_role(user=answer("One, two, ", "three"), assistant=refusal)
    async with backend_before(script, continues="continue_final_message") as (backend, upstream):
        for _ in range(2):
            assert (await whole(backend, BEGUN))[0] == "three"
    assert [len(asked.body["messages"]) for asked in upstream.requests] == [2, 1, 1]


async def test_a_guided_answer_is_only_gone_on_with_by_the_same_text() -> None:
    guided = BEGUN.model_copy(
        update={
            "continuation": Continuation(text='{"a": ', tokens=4),
            "guide": GuidedDecoding(json_schema={"type": "object"}),
        }
    )
    async with backend_before(answer('{"a"', ": 1}")) as (backend, _):
        assert (await whole(backend, guided))[0] == "1}"
    async with backend_before(answer('{"b": 1}')) as (backend, upstream):
        with pytest.raises(CannotContinue) as caught:
            await whole(backend, guided)
        assert caught.value.retryable
        assert len(upstream.requests) == 1


async def test_an_error_after_the_text_goes_on_is_no_reason_to_begin_again() -> None:
    bad = stream(event(delta("three")), event({"error": {"code": 400, "message": "bad"}}))
    async with backend_before(bad, continues="trailing_message") as (backend, upstream):
        with pytest.raises(InvalidRequest):
            await whole(backend, BEGUN)
        assert len(upstream.requests) == 1


async def test_calls_after_a_text_that_was_sent_come_whole_and_once() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    calls = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    offered = BEGUN.model_copy(update={"offer": ToolOffer(tools=(Tool(name="f"),))})
    async with backend_before(stream(event(delta("One, two, ")), event(calls), DONE)) as (backend, _):
        text, finish = await whole(backend, offered)
    assert text == ""
    assert [(each.name, each.arguments) for each in finish.calls] == [("f", "{}")]


async def test_a_completion_goes_on_after_its_prompt() -> None:
    begun = CompletionGeneration(
        id="a.1", model=CHAT.model, prompt="Count: ", continuation=BEGUN.continuation, sampling=BEGUN.sampling
    )
    events = [event({"choices": [{"index": 0, "text": text}]}) for text in ("three", " four")]
    async with backend_before(stream(*events, DONE)) as (backend, upstream):
        assert (await whole(backend, begun))[0] == "three four"
        assert upstream.requests[0].body["prompt"] == "Count: One, two, "


def test_how_a_server_continues_is_known_from_its_list_of_models_or_the_settings() -> None:
    auto = OpenAISettings(base_url="http://host:1")
    for owner, prefill in (
        ("vllm", "continue_final_message"),
        ("sglang", "continue_final_message"),
        ("llamacpp", "trailing_message"),
        ("openai", "no"),
        (None, "no"),
    ):
        assert detect_prefill({"owned_by": owner}, auto) == prefill
    assert detect_prefill({}, auto.model_copy(update={"continues": "trailing_message"})) == "trailing_message"


def test_what_must_be_called_is_asked_for_from_the_beginning_first() -> None:
    must = BEGUN.model_copy(update={"offer": ToolOffer(tools=(Tool(name="f"),), choice="required")})
    assert continuation_methods(must, "trailing_message") == (
        ContinuationMethod.AGAIN,
        ContinuationMethod.TURN,
    )
    assert continuation_methods(BEGUN, "trailing_message") == (
        ContinuationMethod.PREFILL,
        ContinuationMethod.AGAIN,
        ContinuationMethod.TURN,
    )
    assert continuation_methods(
        BEGUN.model_copy(update={"continuation": Continuation(text="\n", tokens=4)}), "trailing_message"
    ) == (ContinuationMethod.AGAIN,)


def passed(seam: ContinuationFilter, pieces: list[str]) -> str:
    outputs: list[Any] = [seam.take(TextDelta(text=text)) for text in pieces]
    rest = seam.rest()
    return "".join(each.text for each in [*outputs, rest] if isinstance(each, TextDelta))


def cut(text: str, sizes: list[int]) -> list[str]:
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    return [piece for piece in [*pieces, text] if piece]


SIZES = st.lists(st.integers(1, 5), max_size=20)
SHORT = st.text("ab \n", max_size=12)


@given(prefix=SHORT, rest=SHORT, sizes=SIZES)
def test_the_seam_cannot_be_seen_however_the_text_is_cut(prefix: str, rest: str, sizes: list[int]) -> None:
    begun = CHAT.model_copy(update={"continuation": Continuation(text=prefix or "a")})
    again = begun.prefix + rest
    assert passed(ContinuationFilter(begun, ContinuationMethod.AGAIN), cut(again, sizes)) == rest
    spaces = begun.prefix[len(begun.prefix.rstrip()) :]
    assert (
        passed(ContinuationFilter(begun, ContinuationMethod.PREFILL), cut(spaces + "c" + rest, sizes))
        == "c" + rest
    )
    assert (
        passed(ContinuationFilter(begun, ContinuationMethod.TURN), cut(begun.prefix + "c" + rest, sizes))
        == "c" + rest
    )
    if begun.prefix.strip():
        assert (
            passed(ContinuationFilter(begun, ContinuationMethod.TURN), cut("c" + rest, sizes)) == "c" + rest
        )
        with pytest.raises(TextMismatch):
            passed(ContinuationFilter(begun, ContinuationMethod.AGAIN), cut("c" + rest, sizes))


def test_the_seam_lets_through_what_is_no_text() -> None:
    seam = ContinuationFilter(BEGUN, ContinuationMethod.PREFILL)
    assert seam.take(KEEP_ALIVE) is KEEP_ALIVE
    end = Finish(reason="stop", usage=Usage())
    assert seam.take(end) is end


def test_a_request_from_the_beginning_has_no_prefix_and_others_no_space_at_its_end() -> None:
    assert continuation_request(BEGUN, ContinuationMethod.AGAIN).prefix == ""
    assert continuation_request(BEGUN, ContinuationMethod.TURN).prefix == "One, two,"
    assert BEGUN.prefix == "One, two, "
    assert BEGUN.messages == (ChatMessage(role="user", content="hello"),)
