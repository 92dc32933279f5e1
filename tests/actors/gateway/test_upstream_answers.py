"""What an upstream says beside plain text, as the gateway's callers get it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from actors.evaluation.runner import StreamedAnswer
from orchestration.patterns.prompt_texts import NOTES_HEAD, TEA_TASKS
from tests.actors.jobs.client import JobsClient, chat
from tests.fixtures.scripted import DONE, WHOLE, Before, cluster_before, stream
from tests.fixtures.upstream import MODEL, STREAM_HEAD, USAGE, Request, Script, chunk, event, response
from tests.fixtures.upstream import delta as text_delta
from tests.orchestration.patterns.scripted import plan_json

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def before() -> Iterator[Before]:
    with cluster_before(stream(*WHOLE, DONE), agents=True) as running:
        yield running


def delta(reason: str | None = None, **fields: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]})


def post(before: Before, *events: bytes, **fields: Any) -> httpx.Response:
    before.answers(*events, DONE)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]} | fields
    return httpx.post(f"{before.cluster.base_url}/chat/completions", json=body, timeout=30)


def whole(before: Before, *events: bytes, **fields: Any) -> dict[str, Any]:
    """The only choice of the answer."""
    answer = post(before, *events, **fields)
    assert answer.status_code == 200, answer.text
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice


def streamed(before: Before, *events: bytes, **fields: Any) -> list[dict[str, Any]]:
    """The only choice of each chunk."""
    answer = post(before, *events, stream=True, **fields)
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line)["choices"][0] for line in lines[:-1]]


THOUGHT = [
    delta(reasoning_content="6 times "),
    delta(reasoning_content="7"),
    delta(content="42"),
    delta("stop"),
]


def test_reasoning_is_passed_on_whole_and_streamed(before: Before) -> None:
    message = whole(before, *THOUGHT)["message"]
    assert (message["content"], message["reasoning_content"], message["reasoning"]) == (
        "42",
        "6 times 7",
        "6 times 7",
    )
    deltas = [chunk["delta"] for chunk in streamed(before, *THOUGHT)]
    assert deltas[0]["role"] == "assistant"
    assert "".join(part.get("reasoning_content", "") for part in deltas) == "6 times 7"
    assert "".join(part.get("reasoning", "") for part in deltas) == "6 times 7"
    assert "".join(part.get("content") or "" for part in deltas) == "42"


def test_an_answer_of_reasoning_alone_is_no_empty_text(before: Before) -> None:
    choice = whole(before, delta(reasoning="6 times"), delta("length"))
    assert choice["message"]["content"] is None
    assert choice["message"]["reasoning_content"] == "6 times"
    assert choice["finish_reason"] == "length"


def test_a_runs_last_step_and_a_job_keep_their_reasoning(before: Before) -> None:
    message = whole(before, *THOUGHT, model="orchestra/single")["message"]
    assert (message["content"], message["reasoning_content"]) == ("42", "6 times 7")
    client = JobsClient(before.cluster.url)
    job = client.ended(client.submit(chat("Hi", model=MODEL)).body["id"])
    message = job["result"]["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("42", "6 times 7")


def test_a_cached_response_has_its_reasoning(before: Before) -> None:
    first = post(before, *THOUGHT, temperature=0)
    again = post(before, delta(content="another"), delta("stop"), temperature=0)
    assert again.headers["x-orchestra-cache"] == "hit"
    assert again.json()["choices"] == first.json()["choices"]


def test_reasoning_that_comes_back_with_a_turn_goes_to_the_upstream(before: Before) -> None:
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "6 times 7?"},
        {"role": "assistant", "content": "42", "reasoning_content": "easy", "reasoning": "easy"},
        {"role": "assistant", "content": "it is", "reasoning": "sure"},
        {"role": "assistant", "content": "yes", "reasoning_content": None, "reasoning": {"effort": "low"}},
        {"role": "user", "content": "Sure?", "reasoning": None},
    ]
    whole(before, delta(content="yes"), delta("stop"), messages=turns)
    assert [turn.get("reasoning_content") for turn in before.body["messages"]] == [
        None,
        "easy",
        "sure",
        None,
        None,
    ]


def test_a_filtered_answer_says_so(before: Before) -> None:
    events = [delta(content="I"), delta("content_filter")]
    assert whole(before, *events)["finish_reason"] == "content_filter"
    assert streamed(before, *events)[-1]["finish_reason"] == "content_filter"
    assert whole(before, *events, model="orchestra/single")["finish_reason"] == "content_filter"
    answer = post(before, *events, model="orchestra/self-consistency")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")


def test_a_refusal_is_passed_on_whole_and_streamed(before: Before) -> None:
    events = [delta(refusal="I will "), delta(refusal="not."), delta("stop")]
    message = whole(before, *events)["message"]
    assert (message["content"], message["refusal"]) == (None, "I will not.")
    deltas = [chunk["delta"] for chunk in streamed(before, *events)]
    assert "".join(part.get("refusal") or "" for part in deltas) == "I will not."
    assert whole(before, *events, model="orchestra/single")["message"]["content"] == "I will not."


def test_a_pattern_works_on_a_model_without_a_system_role(before: Before) -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        if any(message["role"] == "system" for message in request.body["messages"]):
            yield response(400, {"error": {"message": "System role not supported"}})
            return
        async for part in stream(*WHOLE, DONE)(request):
            yield part

    before.upstream.script = script
    body = {"model": "orchestra/single", "messages": [{"role": "user", "content": "Hi"}]}
    answer = httpx.post(f"{before.cluster.base_url}/chat/completions", json=body, timeout=30)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello there"
    assert before.body["messages"][0]["content"].endswith("\n\nHi")


def corrects_itself() -> Script:
    """Recites a prompt's example in the last step of a team, and answers when it is asked again."""
    synthesized = 0

    async def script(request: Request) -> AsyncIterator[bytes]:
        nonlocal synthesized
        text = "It is 42."
        if request.body.get("response_format"):
            text = plan_json(("reasoning", "add the numbers", 1))
        elif NOTES_HEAD in request.body["messages"][-1]["content"]:
            synthesized += 1
            text = f"Let me think about it. {TEA_TASKS[2]}" if synthesized % 2 else text
        words = [event(text_delta(word)) for word in re.findall(r"\s*\S+", text)]
        async for part in stream(*words, event(text_delta(None, "stop")), DONE)(request):
            yield part

    return script


def test_an_answer_that_is_not_streamed_holds_the_corrected_text_alone(before: Before) -> None:
    before.upstream.script = corrects_itself()
    body = {"model": "orchestra/maestro", "messages": [{"role": "user", "content": "What is 12 + 30?"}]}
    url = f"{before.cluster.base_url}/chat/completions"
    answer = httpx.post(url, json=body, timeout=30).json()
    assert answer["choices"][0]["message"]["content"] == "It is 42."
    client = JobsClient(before.cluster.url)
    job = client.ended(client.submit(body).body["id"])
    assert job["result"]["choices"][0]["message"]["content"] == "It is 42."
    lines = httpx.post(url, json=body | {"stream": True}, timeout=30).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    said = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert re.fullmatch(r"(Let[ \w.]*\n\nCorrection: )?It is 42\.", "".join(said))
    heard = StreamedAnswer(0.0)
    for piece in chunks:
        heard.add(piece)
    assert "".join(heard.text) == "It is 42."


def one_is_stopped() -> Script:
    """Of every three voices the last never ends, and the others answer when it has begun."""
    asked, begun = 0, [asyncio.Event()]

    async def script(request: Request) -> AsyncIterator[bytes]:
        nonlocal asked
        asked += 1
        now = begun[-1]
        if asked % 3 == 0:
            begun.append(asyncio.Event())
            yield STREAM_HEAD + chunk(event(text_delta("Let me think about that.")))
            now.set()
            await asyncio.get_running_loop().create_future()
        await now.wait()
        answer = [event(text_delta("The answer is 7.")), event(text_delta(None, "stop")), event(USAGE), DONE]
        async for part in stream(*answer)(request):
            yield part

    return script


def test_all_that_was_written_is_in_the_usage_by_model_and_what_was_thrown_away_apart(before: Before) -> None:
    before.upstream.script = one_is_stopped()
    body: dict[str, Any] = {
        "model": "orchestra/self-consistency",
        "messages": [{"role": "user", "content": "What is 3 + 4?"}],
        "orchestra": {"settings": {"samples": 3}, "budget": {"tokens": 9_000}},
    }
    url = f"{before.cluster.base_url}/chat/completions"
    for _ in range(5):  # the vote may end before its first word is here
        answer = httpx.post(url, json=body, timeout=30).json()
        assert answer["choices"][0]["message"]["content"] == "The answer is 7."
        if answer["orchestra"]["usage"]["discarded"]["completion_tokens"]:
            break
    usage, said = answer["usage"], answer["orchestra"]
    stopped = next(step for step in said["steps"] if step["finish_reason"] == "cancelled")
    assert (stopped["text"], stopped["model"]) == ("Let me think about that.", MODEL)
    assert said["usage"]["discarded"]["completion_tokens"] == stopped["usage"]["completion_tokens"] > 0
    assert [*said["usage"]["by_model"]] == [MODEL]
    for part in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert said["usage"]["by_model"][MODEL][part] == usage[part]
    assert usage["completion_tokens"] == 2 * 2 + stopped["usage"]["completion_tokens"]
    assert said["report"]["budget"]["tokens"]["used"] == usage["total_tokens"]
    lines = httpx.post(
        url, json=body | {"stream": True, "stream_options": {"include_usage": True}}, timeout=30
    ).text.splitlines()
    heard = StreamedAnswer(0.0)
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    for piece in chunks:
        heard.add(piece)
    assert heard.tokens == chunks[-1]["usage"]["total_tokens"]
    used = heard.models[MODEL]
    assert used.prompt_tokens + used.completion_tokens == heard.tokens
    told = [piece["orchestra"]["step"] for piece in chunks if "step" in piece.get("orchestra", {})]
    written = [step["usage"].get("completion_tokens", 0) for step in told]
    assert sum(written) == chunks[-1]["usage"]["completion_tokens"]


def test_two_calls_that_came_with_one_number_leave_with_their_own(before: Before) -> None:
    calls = [
        {"id": f"call_{n}", "index": 0, "function": {"name": "f", "arguments": f'{{"n": {n}}}'}}
        for n in range(2)
    ]
    events = [delta(tool_calls=[call]) for call in calls] + [delta("tool_calls")]
    message = whole(before, *events, tools=[TOOL])["message"]
    assert [(call["id"], call["function"]["arguments"]) for call in message["tool_calls"]] == [
        ("call_0", '{"n": 0}'),
        ("call_1", '{"n": 1}'),
    ]
    chunks = streamed(before, *events, tools=[TOOL])
    deltas = [call for chunk in chunks for call in chunk["delta"].get("tool_calls", ())]
    assert [(call["index"], call["id"]) for call in deltas] == [(0, "call_0"), (1, "call_1")]
    assert chunks[-1]["finish_reason"] == "tool_calls"
