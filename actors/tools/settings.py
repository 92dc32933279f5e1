"""Settings of the tools that agents use, and of the MCP servers that offer them."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from orchestration.hot import Hot
from orchestration.roles import built_in_roles


class ToolSettings(BaseModel):
    """Limits of every use of a tool, whichever tool it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int = Field(default=16, ge=1, le=256)
    """Maximum calls in progress in this process, for each role."""
    max_waiting: Hot[int] = Field(default=64, ge=0, le=4_096)
    """Maximum calls of each role that wait for another one to end; one more fails with `overloaded`."""
    timeout_s: Hot[float] = Field(default=30, gt=0, le=600)
    """Timeout of one call."""
    max_arguments_bytes: Hot[int] = Field(default=65_536, ge=256, le=524_288)
    """Maximum size of the arguments as JSON; larger ones are refused."""
    max_result_bytes: Hot[int] = Field(default=131_072, ge=1_024, le=524_288)
    """Maximum size of the text of a result, and of its data. Longer text is cut and marked; larger data is an
    error."""


class McpServerSettings(BaseModel):
    """An MCP server: either a `command` that is started here and used over stdin and stdout, or the `url` of
    a server that runs elsewhere (streamable HTTP)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str = ""
    """Program of a server that is started here."""
    args: tuple[str, ...] = ()
    """Arguments of the program."""
    env: dict[str, SecretStr] = {}
    """Environment variables for the program, beside PATH, HOME and the like. It gets no other variable of
    this process."""
    url: str = ""
    """URL of a server that runs elsewhere, `http://` or `https://`."""
    roles: tuple[str, ...] = ("research",)
    """Roles whose agents may use the server's tools."""
    tools: tuple[str, ...] = ()
    """Names of the tools that may be used; empty: all."""
    start_timeout_s: float = Field(default=20, gt=0, le=300)
    """Maximum time from the start of the server until it has listed its tools."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("set one of command and url")
        for role in self.roles:
            if role not in built_in_roles():
                raise ValueError(f"no role {role!r}; the roles are {', '.join(built_in_roles())}")
        return self
