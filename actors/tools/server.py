"""The actor at which the tools of one role are used."""

from __future__ import annotations

from typing import Any

from actors.bus.subjects import AgentAddress
from actors.runtime.actor import Actor
from actors.runtime.actor_host import ActorRef
from actors.runtime.service import Endpoint, decode_model
from actors.tools.messages import AskTools, ToolsOffered, UseTool
from actors.tools.registry import ToolRegistry
from orchestration.messages import ToolResult


class Workbench(Actor):
    """Tools take threads, processes and servers of others, so only some are used at once, and some may wait.

    It is an actor apart from the agent, so that a slow tool holds up no step.
    """

    concurrency = 16
    mailbox_size = 64

    def __init__(self, role: str, tools: ToolRegistry) -> None:
        self.role = role
        self.tools = tools

    async def on_ask_tools(self, message: AskTools) -> ToolsOffered:
        return ToolsOffered(tools=await self.tools.tools(self.role))

    async def on_use(self, message: UseTool) -> ToolResult:
        return await self.tools.use(self.role, message.tool, message.arguments)


def endpoints(address: AgentAddress, ref: ActorRef, queue: str) -> tuple[Endpoint, Endpoint]:
    """Where a workbench is reached on the bus."""
    named: dict[str, Any] = {"ref": ref, "queue": queue, "streams": False}
    return (
        Endpoint(name=f"tools-{address.name}", subject=address.tools, decode=decode_model(AskTools), **named),
        Endpoint(name=f"use-{address.name}", subject=address.use, decode=decode_model(UseTool), **named),
    )
