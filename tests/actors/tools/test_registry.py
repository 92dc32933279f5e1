"""Tools of agents: used within limits, and their failures told apart."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic_core import to_json

from actors.tools.registry import ToolRegistry
from actors.tools.settings import ToolSettings
from orchestration.errors import InvalidRequest, Overloaded
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


def registry(tool: Echoing, **settings: float) -> ToolRegistry:
    """What the research agent has."""
    tools = ToolRegistry(ToolSettings.model_validate({"max_result_bytes": 1_024} | settings))
    tools.register("research", tool)
    return tools


async def test_an_agents_tools_are_listed_with_their_schemas_and_used_with_their_arguments() -> None:
    tools = registry(Echoing())
    assert await tools.tools("research") == (Echoing.tool,)
    result = await tools.use("research", "echo", {"words": ["ä", 1, None]})
    assert result == ToolResult(text="{'words': ['ä', 1, None]}", data={"words": ["ä", 1, None]})


async def test_an_agent_without_tools_has_no_tools_and_cannot_use_any() -> None:
    tools = registry(Echoing())
    assert await tools.tools("creative") == ()
    with pytest.raises(InvalidRequest, match="creative has no tool 'echo'"):
        await tools.use("creative", "echo", {})


async def test_a_tool_that_the_agent_does_not_have_is_refused_and_those_it_has_are_named() -> None:
    tools = registry(Echoing())
    with pytest.raises(InvalidRequest, match="no tool 'shell'; its tools: echo") as caught:
        await tools.use("research", "shell", {})
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
    passages: list[dict[str, Any]],
) -> None:
    tools = registry(Listing(passages))
    result = await tools.use("research", "echo", {})
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
    fault: str, said: str
) -> None:
    tool = Echoing(fault)
    tools = registry(tool)
    for _ in range(8):  # an actor that crashed as often would have given up
        assert said in (await tools.use("research", "echo", {})).error
    tool.fault = ""
    assert (await tools.use("research", "echo", {})).error == ""


async def test_a_long_text_is_cut_and_says_so_and_half_a_character_becomes_a_question_mark() -> None:
    tools = registry(Echoing("large text"))
    result = await tools.use("research", "echo", {})
    assert result.text.startswith("éééé")
    assert result.text.endswith("bytes left out]")
    assert len(result.text.encode()) <= 1_024
    tools = registry(Echoing("surrogate"))
    assert (await tools.use("research", "echo", {})).text == "half ? of it"


async def test_arguments_beyond_the_limit_never_reach_the_tool() -> None:
    tool = Echoing()
    tools = registry(tool, max_arguments_bytes=256)
    with pytest.raises(InvalidRequest, match="exceed max_arguments_bytes 256"):
        await tools.use("research", "echo", {"text": "x" * 300})
    assert tool.used == 0


async def test_a_tool_that_hangs_is_stopped_at_its_time_limit() -> None:
    tool = Echoing()
    tool.open.clear()
    tools = registry(tool, timeout_s=0.05)
    result = await tools.use("research", "echo", {})
    assert result.error == "echo took longer than timeout_s 0.05"
    assert tool.stopped == 1


async def test_more_uses_than_may_wait_are_refused_and_the_others_come_through() -> None:
    tool = Echoing()
    tool.open.clear()
    settings = {"concurrency": 4, "max_waiting": 8}
    most = sum(settings.values())
    tools = registry(tool, **settings)
    uses = [asyncio.create_task(tools.use("research", "echo", {"n": n})) for n in range(most + 5)]
    done, _ = await asyncio.wait(uses, return_when=asyncio.FIRST_COMPLETED)
    assert all(isinstance(task.exception(), Overloaded) for task in done)
    tool.open.set()
    results = await asyncio.gather(*uses, return_exceptions=True)
    assert sum(isinstance(result, Overloaded) for result in results) == 5
    assert sum(isinstance(result, ToolResult) for result in results) == most
