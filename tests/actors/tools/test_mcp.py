"""Tools of a real MCP server, started over stdio by the official client."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from actors.agents.settings import AgentsSettings
from actors.launch.build_tools import build_tools
from actors.settings import Settings, leaves
from actors.tools.mcp_server import McpServer
from actors.tools.registry import ToolRegistry
from actors.tools.settings import McpServerSettings, ToolSettings
from tests.fixtures.eventually import eventually
from tests.fixtures.machines import free_ports

SERVER = Path(__file__).with_name("mcp_tools.py")


def settings(*words: str, **more: object) -> McpServerSettings:
    said = {"command": sys.executable, "args": (str(SERVER), *words)}
    return McpServerSettings.model_validate(said | more)


@asynccontextmanager
async def served(
    server: McpServerSettings | None = None, **bounds: float
) -> AsyncIterator[tuple[ToolRegistry, McpServer]]:
    registry = ToolRegistry(ToolSettings.model_validate(bounds))
    box = McpServer("shop", server or settings())
    registry.register_provider("research", box)
    try:
        yield registry, box
    finally:
        await registry.close()


async def started(box: McpServer) -> None:
    await eventually(box.tools, within_s=60)


async def test_its_tools_are_named_after_the_server_and_used_with_their_arguments() -> None:
    async with served() as (registry, box):
        await started(box)
        tools = {tool.name: tool for tool in await registry.tools("research")}
        assert tools["shop.stock"].description == "How many of an item are in the warehouse."
        assert tools["shop.stock"].parameters["required"] == ["item"]
        result = await registry.use("research", "shop.stock", {"item": "bolts"})
        assert result.text.startswith("There are 17 of bolts in aisle 4.")
        total = await registry.use("research", "shop.counted", {"numbers": [1, 2, 3]})
        assert total.data == {"result": 6}


async def test_what_goes_wrong_in_a_tool_is_its_result_and_the_server_stays() -> None:
    async with served(timeout_s=0.5, max_result_bytes=2_048) as (registry, box):
        await started(box)
        before = (await registry.use("research", "shop.who", {})).text.split()[0]
        assert "broken" in (await registry.use("research", "shop.broken", {})).error
        assert (
            await registry.use("research", "shop.slow", {})
        ).error == "shop.slow took longer than timeout_s 0.5"
        assert (await registry.use("research", "shop.large", {})).text.endswith("bytes left out]")
        wrong = await registry.use("research", "shop.counted", {"numbers": "many"})
        assert wrong.error
        assert (await registry.use("research", "shop.who", {})).text.split()[0] == before


async def test_a_server_elsewhere_is_reached_by_its_url_once_it_is_there() -> None:
    (port,) = free_ports(1)
    async with served(McpServerSettings(url=f"http://127.0.0.1:{port}/mcp")) as (registry, box):
        assert await registry.tools("research") == ()
        process = await asyncio.create_subprocess_exec(sys.executable, str(SERVER), "http", str(port))
        try:
            await started(box)
            assert (await registry.use("research", "shop.counted", {"numbers": [4, 5]})).text == "9"
        finally:
            process.kill()
            await process.wait()
        result = await registry.use("research", "shop.counted", {"numbers": [4, 5]})
        assert "lost while it worked" in result.error


async def test_a_server_that_dies_is_told_and_started_again_after_a_pause() -> None:
    async with served() as (registry, box):
        await started(box)
        first = (await registry.use("research", "shop.who", {})).text.split()[0]
        result = await registry.use("research", "shop.die", {})
        assert "lost while it worked" in result.error
        assert await registry.tools("research") == ()
        assert "not there" in (await box.use("shop.stock", {"item": "x"})).error
        await started(box)
        second = (await registry.use("research", "shop.who", {})).text.split()[0]
        assert second != first
    await eventually(lambda: not psutil.pid_exists(int(second)))


async def test_a_server_that_does_not_start_offers_nothing_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for server in (settings("broken"), McpServerSettings(command="/nowhere/tool")):
        async with served(server) as (registry, box):
            assert await registry.tools("research") == ()
            await eventually(partial(getattr, box, "_why"))
            result = await box.use("shop.stock", {"item": "x"})
            assert "the MCP server shop is not there: " in result.error
    assert len([record for record in caplog.records if "cannot be used" in record.message]) >= 2


async def test_a_server_that_says_nothing_is_given_up_after_its_time_to_start() -> None:
    silent = McpServerSettings(command="sleep", args=("60",), start_timeout_s=0.2)
    async with served(silent) as (_, box):
        assert await box.tools() == ()
        await eventually(lambda: "start_timeout_s 0.2" in box._why)


async def test_a_server_sees_little_of_our_environment_and_only_the_tools_that_are_allowed_are_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OUR_SECRET", "x")
    async with served(settings(env={"ITS_SECRET": "y"}, tools=("who",))) as (registry, box):
        await started(box)
        assert [tool.name for tool in await registry.tools("research")] == ["shop.who"]
        assert (await registry.use("research", "shop.who", {})).text.endswith("['ITS_SECRET']")
    assert "OUR_SECRET" in os.environ


async def test_the_settings_give_a_servers_tools_to_the_roles_they_name(tmp_path: Path) -> None:
    agents = AgentsSettings(mcp={"shop": settings(roles=("code", "critic"))})
    registry = build_tools(Settings(data=tmp_path, agents=agents), None)
    assert set(registry.roles) >= {"code", "critic"}
    assert "research" not in registry.roles
    await registry.close()


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({}, "set one of command and url"),
        ({"command": "x", "url": "http://x"}, "set one of command and url"),
        ({"command": "x", "roles": ["wizard"]}, "no role 'wizard'"),
    ],
)
def test_wrong_settings_are_refused(server: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AgentsSettings.model_validate({"mcp": {"shop": server}})
    with pytest.raises(ValidationError):
        AgentsSettings.model_validate({"mcp": {"a.b": {"command": "x"}}})


def test_keys_in_the_environment_of_a_server_are_masked_where_settings_are_shown() -> None:
    agents = AgentsSettings(mcp={"shop": settings(env={"SHOP_API_KEY": "hush", "LANG": "C"})})
    assert "hush" not in str(leaves(Settings(agents=agents)))
    assert "hush" not in repr(agents)
