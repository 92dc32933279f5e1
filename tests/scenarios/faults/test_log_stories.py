"""The log of a run whose coordinator is killed, and of a request whose node is: one story, and the tokens of
the response."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from actors.logs.filter import LogFilter
from actors.logs.reader import LogReader
from orchestration.log_events import LogEvent
from tests.fixtures.eventually import eventually
from tests.scenarios.faults.process_cluster import ProcessCluster

CHAT = "/v1/chat/completions"
QUESTION = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
TRACE = "5b8aa5a2d2c872e8321cf37308d69df2"
HEADERS = {"traceparent": f"00-{TRACE}-051581bf3cb55c13-01"}
ASKED = [{"role": "user", "content": " ".join([QUESTION] * 8)}]


class Answer:
    """An answer that is being streamed."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        self.run = ""
        self.usage: dict[str, int] = {}
        self.reading = asyncio.get_running_loop().create_task(self._read(url, body))

    async def _read(self, url: str, body: dict[str, Any]) -> None:
        asked = body | {"messages": ASKED, "stream": True, "stream_options": {"include_usage": True}}
        session = aiohttp.ClientSession(headers=HEADERS)
        async with session, session.post(url + CHAT, json=asked) as response:
            assert response.status == 200
            self.run = response.headers["X-Orchestra-Run"]
            async for line in response.content:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    assert "error" not in chunk, chunk
                    self.usage = chunk.get("usage") or self.usage

    @property
    def tokens(self) -> tuple[int, int]:
        return self.usage["prompt_tokens"], self.usage["completion_tokens"]


async def story_with(processes: ProcessCluster, answer: Answer, name: str) -> list[LogEvent]:
    """The story of the answer, once an event of that name is in it."""
    found: list[LogEvent] = []

    async def there() -> bool:
        story = await LogReader(processes.bus).story(LogFilter(run=answer.run)) if answer.run else []
        found[:] = [stored.event for stored in story]
        return any(event.name == name for event in found)

    await eventually(there, within_s=60)
    return found


def tokens_of(events: list[LogEvent], name: str) -> tuple[int, int]:
    """The tokens of the only event of that name."""
    (event,) = (event for event in events if event.name == name)
    return event.data["input_tokens"], event.data["output_tokens"]


async def test_a_run_whose_coordinator_is_killed_is_one_story_with_the_tokens_of_the_stream(
    processes: ProcessCluster,
) -> None:
    url, *_ = await asyncio.gather(
        processes.gateway("gateway"),
        processes.start("dispatcher", "dispatcher"),
        processes.start("victim", "agents"),
        processes.node("a", "--speed", "30"),
    )
    await processes.ready()
    answer = Answer(url, {"model": "orchestra/debate", "orchestra": {"settings": {"rounds": 2}}})
    before = await story_with(processes, answer, "step.ended")
    assert not any(event.name == "run.ended" for event in before)
    processes.kill("victim")
    await processes.start("heir", "agents")
    await answer.reading
    await story_with(processes, answer, "request.ended")
    events = await story_with(processes, answer, "run.ended")
    runs = [event for event in events if event.name.startswith("run.")]
    assert [event.name for event in runs] == ["run.started", "run.resumed", "run.ended"]
    assert [event.data["attempt"] for event in runs[:2]] == [1, 2]
    assert len({event.process for event in runs}) == 2
    assert {(event.name, event.trace) for event in events if event.trace != TRACE} == set()
    assert len({event.id for event in events}) == len(events)
    assert tokens_of(events, "run.ended") == answer.tokens
    assert tokens_of(events, "request.ended") == answer.tokens


async def test_a_request_whose_node_is_killed_ends_in_the_log_with_the_tokens_of_the_response(
    processes: ProcessCluster,
) -> None:
    url, *_ = await asyncio.gather(
        processes.gateway("gateway"),
        processes.start("dispatcher", "dispatcher"),
        processes.node("a"),
        processes.node("b"),
    )
    await processes.ready()
    answer = Answer(url, {"model": "echo"})

    def busy() -> str:
        return next((node.id for node in processes.registry.nodes.values() if node.running), "")

    lost: str = await eventually(busy)
    processes.kill(lost)
    await answer.reading
    await story_with(processes, answer, "generation.moved")
    events = await story_with(processes, answer, "request.ended")
    assert tokens_of(events, "request.ended") == answer.tokens
    (moved,) = (event for event in events if event.name == "generation.moved")
    (ended,) = (event for event in events if event.name == "request.ended")
    assert moved.node == lost
    assert {lost, ended.node} == {"a", "b"}
    assert ended.data["moves"] == 1
