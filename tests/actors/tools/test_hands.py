"""Tools of agents, used over a real NATS server: bounded, and told apart when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from pydantic_core import to_json

from actors.bus.bus import Bus
from actors.bus.subjects import AgentAddress
from actors.runtime.envelope import Envelope
from actors.runtime.service import Service, ServiceInfo
from actors.runtime.system import ActorSystem
from actors.tools.client import RemoteHands
from actors.tools.registry import ToolRegistry
from actors.tools.server import Workbench, endpoints
from actors.tools.settings import ToolSettings
from orchestration.errors import DeadlineExceeded, InvalidRequest, Overloaded
from orchestration.messages import Tool, ToolResult


class Echoing:
    """Says what it was given, once `open` is set; or does what a bad tool does."""

    tool = Tool(name="echo", description="says it again", parameters={"type": "object"})

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.open = asyncio.Event()
        self.open.set()
        self.used = 0
        self.stopped = 0

    async def use(self, arguments: dict[str, Any]) -> ToolResult:
        self.used += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        match self.fault:
            case "crash":
                raise ZeroDivisionError("by zero")
            case "large text":
                return ToolResult(text="é" * 4_000)
            case "large data":
                return ToolResult(data=["x" * 100] * 100)
            case "no json":
                return ToolResult(data=object())
            case "surrogate":
                return ToolResult(text="half \ud83d of it")
        return ToolResult(text=str(arguments), data=arguments)


class Listing(Echoing):
    """Gives passages."""

    def __init__(self, passages: list[dict[str, Any]]) -> None:
        super().__init__()
        self.passages = passages

    async def use(self, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult(data=self.passages)


@dataclass
class Reached:
    hands: RemoteHands
    envelope: Envelope

    async def tools(self, agent: str) -> tuple[Tool, ...]:
        return await self.hands.tools(agent, self.envelope)

    async def use(self, agent: str, tool: str, arguments: dict[str, Any]) -> ToolResult:
        return await self.hands.use(agent, tool, arguments, self.envelope)


@asynccontextmanager
async def reached(bus: Bus, hand: Echoing, **settings: float) -> AsyncIterator[Reached]:
    """The research agent's hands on the bus, of a cluster of its own."""
    hands = ToolRegistry(ToolSettings.model_validate({"max_result_bytes": 1_024} | settings))
    hands.register("research", hand)
    address = AgentAddress(f"c-{uuid4().hex[:8]}", "research")
    system = ActorSystem()
    ref = await system.spawn(Workbench, lambda: Workbench("research", hands), name="hands of research")
    service = Service(bus, ServiceInfo(name="hands", version="0.1.0"))
    for endpoint in endpoints(address, ref, "agents"):
        await service.add(endpoint)
    await bus.flush()
    yield Reached(
        RemoteHands(bus=bus, cluster=address.cluster, timeout_s=hands.settings.timeout_s), Envelope.within(20)
    )
    await service.leave()
    await ref.host.drain(5)


async def test_an_agents_tools_are_listed_with_their_schemas_and_used_with_their_arguments(bus: Bus) -> None:
    async with reached(bus, Echoing()) as remote:
        assert await remote.tools("research") == (Echoing.tool,)
        result = await remote.use("research", "echo", {"words": ["ä", 1, None]})
    assert result == ToolResult(text="{'words': ['ä', 1, None]}", data={"words": ["ä", 1, None]})


async def test_an_agent_without_hands_has_no_tools_and_cannot_use_any(bus: Bus) -> None:
    async with reached(bus, Echoing()) as remote:
        assert await remote.tools("creative") == ()
        with pytest.raises(InvalidRequest, match="creative has no tool 'echo'"):
            await remote.use("creative", "echo", {})


async def test_a_tool_that_the_agent_does_not_have_is_refused_and_those_it_has_are_named(bus: Bus) -> None:
    async with reached(bus, Echoing()) as remote:
        with pytest.raises(InvalidRequest, match="no tool 'shell'; its tools: echo") as caught:
            await remote.use("research", "shell", {})
    assert caught.value.param == "tool"


@pytest.mark.parametrize(
    "passages",
    [
        [{"document": "a", "passage": "word " * 20, "similarity": 0.7}] * 50,
        [{"document": "a", "passage": "ACGT" * 50_000, "similarity": 0.7}],
        [{"document": "a", "passage": "short"}, {"document": "b", "passage": "\x00é漢" * 9_000}],
    ],
    ids=["many", "one", "the second"],
)
async def test_of_passages_that_are_too_many_or_too_long_those_that_fit_are_given(
    bus: Bus, passages: list[dict[str, Any]]
) -> None:
    async with reached(bus, Listing(passages)) as remote:
        result = await remote.use("research", "echo", {})
    assert result.error == ""
    assert len(to_json(result.data)) <= 1_024
    assert result.data
    for given, whole in zip(result.data, passages, strict=False):
        assert whole["passage"].startswith(given["passage"])
        assert given["passage"]
        assert given["document"] == whole["document"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("crash", "echo failed: ZeroDivisionError: by zero"),
        ("large data", "more than max_result_bytes 1024"),
        ("no json", "gave data that is no JSON"),
    ],
)
async def test_what_goes_wrong_in_a_tool_is_in_its_result_and_the_agent_lives_on(
    bus: Bus, fault: str, said: str
) -> None:
    hand = Echoing(fault)
    async with reached(bus, hand) as remote:
        for _ in range(8):  # an actor that crashed as often would have given up
            assert said in (await remote.use("research", "echo", {})).error
        hand.fault = ""
        assert (await remote.use("research", "echo", {})).error == ""


async def test_a_long_text_is_cut_and_says_so_and_half_a_character_becomes_a_question_mark(bus: Bus) -> None:
    async with reached(bus, Echoing("large text")) as remote:
        result = await remote.use("research", "echo", {})
    assert result.text.startswith("éééé")
    assert result.text.endswith("bytes left out]")
    assert len(result.text.encode()) <= 1_024
    async with reached(bus, Echoing("surrogate")) as remote:
        assert (await remote.use("research", "echo", {})).text == "half ? of it"


async def test_arguments_beyond_the_limit_never_reach_the_tool(bus: Bus) -> None:
    hand = Echoing()
    async with reached(bus, hand, max_arguments_bytes=256) as remote:
        with pytest.raises(InvalidRequest, match="exceed max_arguments_bytes 256"):
            await remote.use("research", "echo", {"text": "x" * 300})
    assert hand.used == 0


async def test_a_tool_that_hangs_is_stopped_at_its_time_limit(bus: Bus) -> None:
    hand = Echoing()
    hand.open.clear()
    async with reached(bus, hand, timeout_s=0.05) as remote:
        result = await remote.use("research", "echo", {})
    assert result.error == "echo took longer than timeout_s 0.05"
    assert hand.stopped == 1


async def test_the_runs_deadline_goes_over_the_tools_time_limit(bus: Bus) -> None:
    hand = Echoing()
    hand.open.clear()
    async with reached(bus, hand) as remote:
        remote.envelope = Envelope.within(0.1)
        with pytest.raises(DeadlineExceeded):
            await remote.use("research", "echo", {})


async def test_more_uses_than_may_wait_are_refused_and_the_others_come_through(bus: Bus) -> None:
    hand = Echoing()
    hand.open.clear()
    most = Workbench.concurrency + Workbench.mailbox_size
    async with reached(bus, hand) as remote:
        uses = [asyncio.create_task(remote.use("research", "echo", {"n": n})) for n in range(most + 5)]
        done, _ = await asyncio.wait(uses, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(task.exception(), Overloaded) for task in done)
        hand.open.set()
        results = await asyncio.gather(*uses, return_exceptions=True)
    assert sum(isinstance(result, Overloaded) for result in results) == 5
    assert sum(isinstance(result, ToolResult) for result in results) == most
