"""Settings of an MCP server whose tools agents use."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from orchestration.roles import built_in_roles


class McpServerSettings(BaseModel):
    """A command that is started here and spoken to over its stdin and stdout, or the URL of one that runs
    elsewhere (streamable HTTP): one of the two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, SecretStr] = {}
    """Variables for the server, beside PATH, HOME and the like. It sees no other variable of ours."""
    url: str = ""
    roles: tuple[str, ...] = ("research",)
    """The agents that may use its tools."""
    tools: tuple[str, ...] = ()
    """The tools that may be used; empty: all of them."""
    start_timeout_s: float = Field(default=20, gt=0, le=300)
    """Seconds that the server has from its start until it has listed its tools."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("set one of command and url")
        for role in self.roles:
            if role not in built_in_roles():
                raise ValueError(f"no role {role!r}; the roles are {', '.join(built_in_roles())}")
        return self
