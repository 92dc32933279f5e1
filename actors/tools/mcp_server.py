"""The tools of an MCP server: started when they are first asked for, and again when it was lost."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from mcp import Client, MCPError, StdioServerParameters
from mcp.types import CallToolResult, TextContent

from actors.tools.settings import McpServerSettings
from orchestration.messages import Tool, ToolResult

log = logging.getLogger(__name__)

AWAITED_S = 3.0
"""How long a step waits for the tools of a server that is being started; it goes on without them."""
FIRST_PAUSE_S = 1.0
"""Pause before a lost server is started again; it doubles with each failure."""
LONGEST_PAUSE_S = 60.0
CLOSED_S = 10.0
MAX_TOOLS = 64
MAX_PAGES = 16
DESCRIPTION_CHARACTERS = 400


class McpServer:
    """A `ToolProvider`. Its tools are named `<name>.<tool>`.

    A connection belongs to one task, which enters and leaves it; the others use it meanwhile.
    """

    def __init__(self, name: str, settings: McpServerSettings) -> None:
        self.name = name
        self.settings = settings
        self._keeper: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._tools: tuple[Tool, ...] = ()
        self._settled = asyncio.Event()
        """Set when a start has succeeded or failed."""
        self._lost = asyncio.Event()
        self._failures = 0
        self._not_before = 0.0
        self._why = ""

    @property
    def ready(self) -> bool:
        return True

    async def tools(self) -> tuple[Tool, ...]:
        return self._tools if await self._connected() is not None else ()

    async def use(self, tool: str, arguments: dict[str, Any]) -> ToolResult:
        client = await self._connected()
        if client is None:
            return ToolResult(
                error=f"the MCP server {self.name} is not there: {self._why or 'it is starting'}"
            )
        try:
            result = await client.call_tool(tool.removeprefix(f"{self.name}."), arguments)
        except MCPError as error:
            if self._lost.is_set() or not await self._alive(client):
                self._lost.set()
                self._client = None
                return ToolResult(error=f"the MCP server {self.name} was lost while it worked: {error}")
            return ToolResult(error=f"{tool}: {error}")
        return _as_result(result)

    async def close(self) -> None:
        """Stop the server, for good."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            self._lost.set()
            await asyncio.wait([keeper], timeout=CLOSED_S)
            keeper.cancel()

    async def _alive(self, client: Client) -> bool:
        """Whether it still answers: an error may be the tool's, or the connection's."""
        try:
            async with asyncio.timeout(AWAITED_S):
                await client.list_tools(cache_mode="bypass")
        except (MCPError, TimeoutError):
            return False
        return True

    async def _connected(self) -> Client | None:
        """The connection, made first where there is none and it is time to try."""
        loop = asyncio.get_running_loop()
        if self._keeper is None or self._keeper.done():
            if loop.time() < self._not_before:
                return None
            self._settled.clear()
            self._lost.clear()
            self._keeper = loop.create_task(self._keep())
        if self._client is None:
            try:
                async with asyncio.timeout(AWAITED_S):
                    await self._settled.wait()
            except TimeoutError:
                return None
        return self._client

    async def _keep(self) -> None:
        """Hold the connection until it is lost or closed."""
        try:
            async with (
                asyncio.timeout(self.settings.start_timeout_s) as starting,
                Client(self._place()) as client,
            ):
                self._tools = await self._listed(client)
                starting.reschedule(None)
                self._client, self._failures, self._why = client, 0, ""
                self._settled.set()
                log.info("MCP server %s is there with %d tools", self.name, len(self._tools))
                await self._lost.wait()
        except TimeoutError:
            self._failed(f"it had not said its tools after start_timeout_s {self.settings.start_timeout_s:g}")
        except Exception as error:  # the libraries of a transport raise what they like, in groups too
            self._failed(_reason(error))
            log.debug("MCP server %s", self.name, exc_info=error)
        finally:
            self._client = None
            self._failures += 1
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10))
            self._not_before = asyncio.get_running_loop().time() + pause
            self._settled.set()

    def _failed(self, why: str) -> None:
        if why != self._why:
            log.warning("MCP server %s cannot be used: %s", self.name, why)
        self._why = why

    def _place(self) -> StdioServerParameters | str:
        if self.settings.url:
            return self.settings.url
        return StdioServerParameters(
            command=self.settings.command,
            args=list(self.settings.args),
            env={name: value.get_secret_value() for name, value in self.settings.env.items()},
        )

    async def _listed(self, client: Client) -> tuple[Tool, ...]:
        found: list[Tool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            found += [
                Tool(
                    name=f"{self.name}.{tool.name}"[:128],
                    description=(tool.description or "")[:DESCRIPTION_CHARACTERS],
                    parameters=tool.input_schema,
                )
                for tool in page.tools
                if not self.settings.tools or tool.name in self.settings.tools
            ]
            cursor = page.next_cursor
            if not cursor or len(found) >= MAX_TOOLS:
                break
        return tuple(found[:MAX_TOOLS])


def _as_result(result: CallToolResult) -> ToolResult:
    parts = [
        block.text if isinstance(block, TextContent) else f"[{block.type} left out]"
        for block in result.content
    ]
    text = "\n".join(parts)
    if result.is_error:
        return ToolResult(error=text or "the tool failed and did not say why")
    twice = result.structured_content == {"result": text}  # what a tool that gives a text sends beside it
    return ToolResult(text=text, data=None if twice else result.structured_content)


def _reason(error: BaseException) -> str:
    """What went wrong at the root of an exception, which may be a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:300]
