"""Settings of the agents of a process."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.learning.settings import LearningSettings
from actors.tools.mcp_settings import McpServerSettings
from actors.tools.sandbox.settings import SandboxSettings
from actors.tools.settings import ToolSettings
from orchestration.errors import InvalidRequest
from orchestration.patterns import BUILT_IN, StepLimits
from orchestration.roles import RoleOverride, built_in_roles


class AgentsSettings(BaseModel):
    """`cluster` is the owner in the agents' subjects, `agents.prompt.orchestra.<cluster>.<name>`.

    It names the agents only: the queues of runs and generations are one for all who share a NATS account.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cluster: str = Field(default="local", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    concurrency: int = Field(default=16, ge=1, le=1024)
    """Runs at work at once in this process, of each priority, so that none waits behind another."""
    heartbeat_s: int = Field(default=30, ge=1, le=300)
    keep_alive_s: float = Field(default=2, gt=0)
    """How often a run at work is kept from redelivery; a third of the consumers' ack_wait."""
    takeover_quiet_s: float = Field(default=3, gt=0)
    """What was given to another coordinator before is left to it while it wrote within that time."""
    step_silence_s: float = Field(default=5, gt=1)
    """Seconds that an agent which does a step with tools may be silent, before the step is sent to another.
    Agents tell every second that they are at work."""
    drain_timeout_s: float = Field(default=30, ge=0)
    remembered_cancels: int = Field(default=10_000, ge=1)
    """Cancelled runs remembered while they may still be in the queue."""
    limits: StepLimits = StepLimits()
    embedder: str = "all-minilm-l6-v2"
    """Embedding model that the agents run themselves, pulled where it is missing; "" for none: a node's is
    used then, where one serves any."""
    tools: ToolSettings = ToolSettings()
    """Limits of the tools that agents use."""
    mcp: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")], McpServerSettings] = {}
    """MCP servers by name, whose tools the agents here use."""
    sandbox: SandboxSettings = SandboxSettings()
    """The sandbox in which the code agent runs programs."""
    auto: LearningSettings = LearningSettings()
    roles: dict[str, RoleOverride] = {}
    patterns: dict[str, dict[str, Any]] = {}
    """Settings of patterns by their names, where a request says nothing else."""

    @field_validator("roles")
    @classmethod
    def _known(cls, roles: dict[str, RoleOverride]) -> dict[str, RoleOverride]:
        for name in roles:
            if name not in built_in_roles():
                raise ValueError(f"no role {name!r}; the roles are {', '.join(built_in_roles())}")
        return roles

    @field_validator("patterns")
    @classmethod
    def _fit(cls, patterns: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """What a plug-in knows is seen when it is loaded."""
        for name, said in patterns.items():
            if name in BUILT_IN:
                try:
                    BUILT_IN[name].set(said)
                except InvalidRequest as error:
                    raise ValueError(error.message.replace("orchestra.settings", name, 1)) from error
        return patterns
