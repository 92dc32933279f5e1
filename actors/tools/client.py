"""How the tools of an agent are used from elsewhere on the bus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from actors.bus.bus import Bus
from actors.bus.subjects import AgentAddress
from actors.runtime.envelope import Envelope
from actors.runtime.service import ERROR
from actors.tools.messages import AskTools, ToolsOffered, UseTool
from orchestration.errors import (
    DeadlineExceeded,
    ErrorBody,
    InternalError,
    InvalidRequest,
    NodeLost,
    NoResponders,
    from_body,
)
from orchestration.messages import Tool, ToolResult

M = TypeVar("M", bound=BaseModel)

ASKED_S = 5.0
"""To be told what an agent can use; MCP servers may have to be started for it."""
OVERHEAD_S = 2.0
"""Beyond the time that a tool may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteHands:
    """The tools of `cluster`'s agents. `timeout_s` is what a tool may take where it is used."""

    bus: Bus
    cluster: str
    timeout_s: float

    async def tools(self, agent: str, envelope: Envelope) -> tuple[Tool, ...]:
        """What `agent` can use now; nothing where nobody offers it anything. Raises `NodeLost` when who does
        is silent."""
        try:
            offered = await self._request(
                AgentAddress(self.cluster, agent).tools, AskTools(), ToolsOffered, ASKED_S, envelope
            )
        except NoResponders:
            return ()
        return offered.tools

    async def use(
        self, agent: str, tool: str, arguments: Mapping[str, Any], envelope: Envelope
    ) -> ToolResult:
        """What came of it. A use may have effects, so it is never tried twice.

        Raises `InvalidRequest` for a tool that the agent does not have, `Overloaded` when too many are in
        use, `NodeLost` when the agent does not answer in time, `DeadlineExceeded` when the run's time is
        over.
        """
        limit = self.timeout_s + OVERHEAD_S
        try:
            return await self._request(
                AgentAddress(self.cluster, agent).use,
                UseTool(tool=tool, arguments=dict(arguments)),
                ToolResult,
                limit,
                envelope,
            )
        except NoResponders as error:
            raise InvalidRequest(f"{agent} has no tool {tool!r}; its tools: none", param="tool") from error

    async def _request(
        self, subject: str, message: BaseModel, kind: type[M], limit_s: float, envelope: Envelope
    ) -> M:
        limit = min(limit_s, envelope.remaining(limit_s))
        try:
            reply = await self.bus.request(
                subject, message.model_dump_json().encode(), timeout=limit, headers=envelope.headers()
            )
        except DeadlineExceeded as error:
            if limit < limit_s:  # the run's own deadline passed
                raise
            raise NodeLost(f"nobody answered on {subject} in {limit:.1f} s") from error
        try:
            if reply.header(ERROR):
                raise from_body(ErrorBody.model_validate_json(reply.data))
            return kind.model_validate_json(reply.data)
        except ValidationError as error:
            raise InternalError(f"the answer on {subject} cannot be read") from error
