"""What an upstream says beside plain text, as the gateway's callers get it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fixtures.scripted import DONE, WHOLE, Before, cluster_before, stream
from tests.fixtures.upstream import MODEL, event

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
