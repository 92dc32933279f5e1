"""Answers that deviate from the letter of the API, as servers send them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.backends.openai.errors import Upstream
from actors.backends.openai.fields import UNLIKELY
from actors.backends.openai.reader import CompletionReader
from actors.backends.openai.sse import SseParser
from actors.backends.openai.token_count import TokenRatio
from orchestration.errors import BackendFailed, ContextTooLong, OrchestraError, RateLimited
from orchestration.messages import Finish, TextDelta, TextGeneration, Tool, ToolOffer, encode_event
from tests.fixtures.scripted import CHAT, DONE, backend_before, once, stream, whole
from tests.fixtures.upstream import delta, event, response

CALLING = CHAT.model_copy(update={"offer": ToolOffer(tools=(Tool(name="f", description=""),))})


def read(
    *events: Any, generation: TextGeneration = CHAT, done: bool = True
) -> tuple[str, Finish, list[TextDelta]]:
    reader = CompletionReader(Upstream(host="host:1"), generation, TokenRatio())
    pieces = []
    for said in events:
        piece = reader.take(said if isinstance(said, bytes) else json.dumps(said).encode())
        pieces += [piece] if piece else []
    return "".join(piece.text for piece in pieces), reader.finish(done=done), pieces


def called(*deltas: dict[str, Any]) -> list[tuple[str, str, str]]:
    events = [{"choices": [{"delta": {"tool_calls": [one]}}]} for one in deltas]
    _, finish, _ = read(*events, delta(None, "tool_calls"), generation=CALLING)
    return [(call.id, call.name, call.arguments) for call in finish.calls]


def test_a_character_that_was_cut_in_two_is_whole_again_and_half_a_one_is_marked() -> None:
    text, _, pieces = read(delta("a\ud83d"), delta("\ude00b"), delta("c\ude00"), delta(None, "stop"))
    assert text == "a😀bc\ufffd"
    for piece in pieces:
        encode_event(0, TextDelta(text=piece.text))
    halves = ({"arguments": '{"x":"\ud83d'}, {"arguments": '\ude00"}'})
    (call,) = called({"id": "a", "function": {"name": "f"}}, *({"function": half} for half in halves))
    assert call == ("a", "f", '{"x":"😀"}')


def test_the_first_choice_is_read_wherever_it_stands_and_whatever_its_index_is_written_as() -> None:
    other, mine = {"index": 1, "delta": {"content": "no"}}, {"index": "0", "delta": {"content": "yes"}}
    assert read({"choices": [other, mine]}, delta(None, "stop"))[0] == "yes"


def test_a_whole_message_after_the_parts_of_it_is_not_said_twice() -> None:
    last = {"choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}
    assert read(delta("Hel"), delta("lo"), last)[0] == "Hello"
    assert read(last)[0] == "Hello"


@pytest.mark.parametrize("reason", ["content_filter", "length"])
def test_a_stop_after_it_does_not_make_a_cut_answer_whole(reason: str) -> None:
    assert read(delta("I"), delta(None, reason), delta(None, "stop"))[1].reason == reason


@pytest.mark.parametrize("index", [{"index": 0}, {}])
def test_an_id_for_every_part_of_a_call_does_not_cost_its_arguments(index: dict[str, int]) -> None:
    parts = [
        {"id": "a1", "function": {"name": "f"}},
        {"id": "a2", "function": {"arguments": '{"x":'}},
        {"id": "a3", "function": {"arguments": "1}"}},
    ]
    assert called(*(part | index for part in parts)) == [("a1", "f", '{"x":1}')]


def test_what_follows_the_finish_reason_changes_nothing() -> None:
    assert read(delta("Hi"), delta(None, "stop"), b"garbage", {"error": "late"})[0] == "Hi"


def test_bytes_that_are_no_utf_8_are_marked() -> None:
    assert read(b'{"choices":[{"delta":{"content":"a\xff"},"finish_reason":"stop"}]}')[0] == "a\ufffd"


def test_log_probabilities_that_are_no_numbers_do_not_end_an_answer() -> None:
    tokens = [{"token": "a", "logprob": float("-inf")}, {"token": "b", "logprob": None}]
    choice = {"delta": {"content": "ab"}, "logprobs": {"content": tokens}, "finish_reason": "stop"}
    _, _, (piece,) = read({"choices": [choice]})
    assert [token.logprob for token in piece.logprobs or ()] == [UNLIKELY, UNLIKELY]


def test_counts_that_are_missing_or_no_integers_are_not_read_as_none_used() -> None:
    _, finish, _ = read(
        delta("a"), delta("b", "stop"), {"usage": {"prompt_tokens": 5.0, "completion_tokens": None}}
    )
    assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (5, 2)
    assert finish.usage.estimated


@pytest.mark.parametrize("said", [{"message": "boom"}, {"detail": "boom"}, {"base_resp": "boom"}])
@pytest.mark.parametrize("done", [True, False])
def test_an_answer_that_never_came_is_explained_by_what_came(said: dict[str, str], done: bool) -> None:
    with pytest.raises(BackendFailed, match="boom"):
        read(said, done=done)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"error": {"message": "long", "code": "context_length_exceeded"}}, ContextTooLong),
        ([{"error": {"message": "slow", "code": 429, "status": "RESOURCE_EXHAUSTED"}}], RateLimited),
        ({"choices": [{"delta": {}, "error": {"message": "slow", "code": 429}}]}, RateLimited),
    ],
)
def test_an_error_in_a_stream_is_known_by_its_words(said: Any, kind: type[OrchestraError]) -> None:
    with pytest.raises(kind):
        read(said)


def test_events_without_an_empty_line_between_them_are_parted() -> None:
    parser = SseParser(1024)
    assert parser.feed(b'data: {"a": 1}\ndata: {"b": {\ndata:  "c": 2}}\ndata: [DONE]\n\n') == [
        b'{"a": 1}',
        b'{"b": {\n "c": 2}}',
        b"[DONE]",
    ]


async def test_an_end_marker_between_spaces_is_one() -> None:
    async with backend_before(stream(event(delta("Hi")), b"data:   [DONE] \n\n")) as (backend, _):
        assert (await whole(backend))[0] == "Hi"


@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain", "Application/JSON"])
async def test_json_is_read_whatever_the_server_calls_it(kind: str) -> None:
    error = {"error": {"message": "no quota", "code": "insufficient_quota"}}
    async with backend_before(once(response(200, error, Content_Type=kind))) as (backend, _):
        with pytest.raises(RateLimited, match="no quota"):
            await whole(backend)
    answer = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}
    text = b"\xef\xbb\xbf\n" + json.dumps(answer, indent=1).encode()
    async with backend_before(once(response(200, text, Content_Type=kind))) as (backend, _):
        assert (await whole(backend))[0] == "Hi"


async def test_a_page_in_place_of_an_answer_is_shown() -> None:
    page = response(200, b"<html>Log in first</html>", Content_Type="text/html")
    async with backend_before(once(page)) as (backend, _):
        with pytest.raises(BackendFailed, match="Log in first"):
            await whole(backend)


async def test_a_stream_whose_answer_is_whole_ends_well_without_more() -> None:
    async with backend_before(stream(event(delta("Hi", "stop")), DONE)) as (backend, _):
        assert (await whole(backend))[0] == "Hi"
