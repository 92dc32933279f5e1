"""The tools of each role in this process, and their use within limits."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from actors.runtime.failures import wrap_unexpected_errors
from actors.tools.base import LocalTool, ToolProvider
from actors.tools.metrics import count_use
from actors.tools.settings import ToolSettings
from orchestration.errors import InternalError, InvalidRequest, OrchestraError, Overloaded
from orchestration.messages import Tool, ToolResult

JSON_BYTES = 6
"""Bytes that one byte of text takes in JSON at most, which is a control character."""


class _SingleTool:
    """One local tool as a provider."""

    def __init__(self, local: LocalTool) -> None:
        self.local = local

    @property
    def ready(self) -> bool:
        return True

    async def tools(self) -> tuple[Tool, ...]:
        return (self.local.tool,)

    async def use(self, tool: str, arguments: dict[str, Any]) -> ToolResult:
        return await self.local.use(arguments)

    async def close(self) -> None:
        """A local tool holds nothing open."""


class ToolRegistry:
    """The tools of this process, registered for roles before the agents start."""

    def __init__(self, settings: ToolSettings | None = None) -> None:
        self.settings = settings or ToolSettings()
        self._providers: dict[str, list[ToolProvider]] = {}
        self._places: dict[str, asyncio.Semaphore] = {}
        self._waiting: Counter[str] = Counter()

    @property
    def roles(self) -> Collection[str]:
        """The roles that have tools, or may get some."""
        return self._providers.keys()

    def register(self, role: str, local: LocalTool) -> None:
        """Let `role` use one tool of ours."""
        self.register_provider(role, _SingleTool(local))

    def register_provider(self, role: str, provider: ToolProvider) -> None:
        """Let `role` use all tools of the provider. Of two with one name the first registered counts."""
        self._providers.setdefault(role, []).append(provider)

    def ready(self, role: str) -> bool:
        """Whether `role` may have any tools here."""
        return any(provider.ready for provider in self._providers.get(role, ()))

    async def tools(self, role: str) -> tuple[Tool, ...]:
        """What `role` can use now."""
        offered = await asyncio.gather(*(provider.tools() for provider in self._providers.get(role, ())))
        found: dict[str, Tool] = {}
        for tool in (tool for tools in offered for tool in tools):
            found.setdefault(tool.name, tool)
        return tuple(found.values())

    async def use(self, role: str, tool: str, arguments: dict[str, Any]) -> ToolResult:
        """Use a tool. One that takes too long, or raises, gives a result with an `error`.

        Raises `InvalidRequest` for a tool that the role does not have, or arguments that are too large;
        `Overloaded` when too many uses wait.
        """
        size, limit = len(to_json(arguments)), self.settings.max_arguments_bytes
        if size > limit:
            raise InvalidRequest(
                f"arguments of {size} bytes for {tool!r} exceed max_arguments_bytes {limit}",
                param="arguments",
            )
        provider = await self._provider(role, tool)
        async with self._place(role):
            return await self._use(provider, tool, arguments)

    @asynccontextmanager
    async def _place(self, role: str) -> AsyncIterator[None]:
        """Wait for one of the `concurrency` places of the role."""
        places = self._places.setdefault(role, asyncio.Semaphore(self.settings.concurrency))
        limit = self.settings.max_waiting
        if places.locked() and self._waiting[role] >= limit:
            raise Overloaded(
                f"limit reached: {limit} uses of the tools of {role} wait (max_waiting)",
                retry_after_s=1,
            )
        self._waiting[role] += 1
        try:
            await places.acquire()
        finally:
            self._waiting[role] -= 1
        try:
            yield
        finally:
            places.release()

    async def _use(self, provider: ToolProvider, tool: str, arguments: dict[str, Any]) -> ToolResult:
        outcome, began = "ok", time.perf_counter()
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                with wrap_unexpected_errors(tool, "tool"):  # it may be a plug-in
                    result = self._bounded(tool, await provider.use(tool, arguments))
            if result.error:
                outcome = "error"
            return result
        except TimeoutError:
            outcome = "timeout"
            return ToolResult(error=f"{tool} took longer than timeout_s {self.settings.timeout_s:g}")
        except InternalError as error:
            outcome = error.code
            return ToolResult(error=error.message[:500])
        except OrchestraError as error:
            outcome = error.code
            return ToolResult(error=f"{tool}: {error.message}")
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            count_use(tool, outcome, time.perf_counter() - began)

    async def close(self) -> None:
        """Close all providers, each once."""
        providers = {id(each): each for listed in self._providers.values() for each in listed}
        await asyncio.gather(*(provider.close() for provider in providers.values()))

    async def _provider(self, role: str, tool: str) -> ToolProvider:
        names: list[str] = []
        for provider in self._providers.get(role, ()):
            offered = [each.name for each in await provider.tools()]
            if tool in offered:
                return provider
            names += offered
        raise InvalidRequest(
            f"{role} has no tool {tool!r}; its tools: {', '.join(names) or 'none'}", param="tool"
        )

    def _bounded(self, tool: str, result: ToolResult) -> ToolResult:
        """The result as it fits into a message."""
        limit = self.settings.max_result_bytes
        try:
            data, size = result.data, len(to_json(result.data))
            if size > limit and isinstance(data, list) and all(isinstance(each, dict) for each in data):
                data = _fitting(data, limit)
        except PydanticSerializationError as error:
            return ToolResult(error=f"{tool} gave data that is no JSON: {error}"[:500])
        if size > limit and (data is result.data or not data):
            return ToolResult(error=f"{tool} gave {size} bytes of data, more than max_result_bytes {limit}")
        return result.model_copy(
            update={"data": data, "text": _cut(result.text, limit), "error": _cut(result.error, limit // 4)}
        )


def _fitting(items: list[Any], limit: int) -> list[Any]:
    """As many objects of a list, such as passages, as fit into `limit` bytes of JSON, from the first on. The
    one that does not fit whole is there with its longest text cut, so that something always is."""
    result: list[Any] = []
    left = limit - 2
    for item in items:
        left -= len(to_json(item)) + 1
        texts = {name: value for name, value in item.items() if isinstance(value, str)} if item else {}
        if left < 0 and texts:
            longest = max(texts, key=lambda name: len(texts[name]))
            room = len(to_json(texts[longest])) + left
            text = (
                texts[longest].encode(errors="replace")[: max(0, room) // JSON_BYTES].decode(errors="ignore")
            )
            item, left = item | {longest: text}, 0 if text else left
        if left < 0:
            break
        result.append(item)
    return result


def _cut(text: str, limit: int) -> str:
    """`text`, or what fits into `limit` bytes of UTF-8 with a note of how much is missing. Halves of
    characters, which cannot be sent, become question marks."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    result = encoded[: limit - 64].decode(errors="ignore")
    return f"{result}\n[… {len(encoded) - len(result.encode())} bytes left out]"
