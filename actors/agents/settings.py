"""Settings of the agents of a process."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.learning.settings import LearningSettings
from actors.tools.sandbox.settings import SandboxSettings
from actors.tools.settings import McpServerSettings, ToolSettings
from orchestration.errors import InvalidRequest
from orchestration.hot import Hot
from orchestration.patterns import BUILT_IN, StepLimits
from orchestration.roles import RoleOverride, built_in_roles
from orchestration.validation import TextForm


class AgentsSettings(BaseModel):
    """The agents of this process, and the coordinators that perform runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cluster: Annotated[str, TextForm.name("_-", 64)] = "local"
    """Owner in the agents' subjects, `agents.prompt.orchestra.<cluster>.<name>`. It only names the agents:
    the queues are shared by all that use one NATS account."""
    concurrency: Hot[int] = Field(default=16, ge=1, le=1024)
    """Maximum runs in progress in this process, for each priority."""
    heartbeat_s: int = Field(default=30, ge=1, le=300)
    """Time between two heartbeats of each agent on NATS."""
    keep_alive_s: float = Field(default=2, gt=0)
    """Time between two renewals of a run in progress, so that the queue does not deliver it again. Keep it
    near a third of the consumers' `ack_wait`."""
    takeover_quiet_s: Hot[float] = Field(default=3, gt=0)
    """A run that is delivered again stays with its first coordinator while that one wrote within this
    time."""
    step_silence_s: Hot[float] = Field(default=5, gt=1)
    """Maximum silence of an agent during a step with tools; then the step is sent to another agent. Agents
    report every second."""
    drain_timeout_s: float = Field(default=30, ge=0)
    """Maximum time for runs in progress to end at shutdown; then other coordinators resume them."""
    remembered_cancels: int = Field(default=10_000, ge=1)
    """Maximum cancelled runs that are remembered while they may still be in the queue; the oldest are
    forgotten."""
    limits: Hot[StepLimits] = StepLimits()
    embedder: str = "all-minilm-l6-v2"
    """Embedding model that the agents run themselves; downloaded if it is missing. Empty: an embedding model
    of a node is used, if there is one."""
    tools: ToolSettings = ToolSettings()
    """Limits of the tools that agents use."""
    mcp: dict[Annotated[str, TextForm.name("_-", 32)], McpServerSettings] = {}
    """MCP servers by name, whose tools the agents here use."""
    sandbox: SandboxSettings = SandboxSettings()
    """The sandbox in which the code agent runs programs."""
    auto: Hot[LearningSettings] = LearningSettings()
    roles: Hot[dict[str, RoleOverride]] = {}
    patterns: Hot[dict[str, dict[str, Any]]] = {}
    """Default settings of patterns by name: `{debate = {rounds = 1}}`. Settings in a request win."""

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
        for name, values in patterns.items():
            if name in BUILT_IN:
                try:
                    BUILT_IN[name].set(values)
                except InvalidRequest as error:
                    raise ValueError(error.message.replace("orchestra.settings", name, 1)) from error
        return patterns
