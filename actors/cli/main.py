"""The root command, its common options, and how errors become exit codes.

Exit codes: 0 done, 2 bad usage, 3 cluster not reachable, 4 refused by a limit, 5 failed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import click

from actors import __version__
from orchestration.errors import (
    BudgetSpent,
    BusUnavailable,
    InvalidRequest,
    NoNode,
    OrchestraError,
    Refused,
    Unavailable,
    UnknownModel,
)

USAGE, UNREACHABLE, REFUSED, FAILED = 2, 3, 4, 5

COMMANDS = {
    "up": "actors.cli.up:up",
    "node": "actors.cli.roles:node",
    "agents": "actors.cli.roles:agents",
    "dispatcher": "actors.cli.roles:dispatcher",
    "gateway": "actors.cli.roles:gateway",
    "ask": "actors.cli.ask:ask",
    "chat": "actors.cli.ask:chat",
    "status": "actors.cli.status:status",
    "jobs": "actors.cli.jobs:jobs",
    "models": "actors.cli.models:models",
    "patterns": "actors.cli.patterns:patterns",
    "eval": "actors.cli.evaluate:evaluate",
    "feedback": "actors.cli.feedback:feedback",
    "tuning": "actors.cli.tuning:tuning",
    "knowledge": "actors.cli.knowledge:knowledge",
    "triton": "actors.cli.triton:triton",
    "config": "actors.cli.config:config",
}


class Failed(click.ClickException):
    """An `OrchestraError` as the command line tells it: one line, and the exit code of its kind."""

    def __init__(self, error: OrchestraError) -> None:
        super().__init__(error.message)
        self.error = error

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        return exit_code(self.error)

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"orchestra: {self.message}", file=file, err=True)


class Reporting(click.Group):
    """A group whose commands may raise `OrchestraError`."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OrchestraError as error:
            raise Failed(error) from error


class Lazy(Reporting):
    """Imports a command's module when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orchestra")
def root() -> None:
    """Turn the machines you have into one LLM cluster, and ask it.

    Start everything here with `orchestra up`, then `orchestra ask "…"`.
    """


def main() -> None:
    """The entry point of the `orchestra` command."""
    root(prog_name="orchestra")


def exit_code(error: OrchestraError) -> int:
    """The exit code that tells this kind of error apart."""
    if isinstance(error, InvalidRequest | UnknownModel):
        return USAGE
    if isinstance(error, Refused | BudgetSpent):
        return REFUSED
    if isinstance(error, NoNode):
        return FAILED
    if isinstance(error, BusUnavailable) or type(error) is Unavailable:
        return UNREACHABLE
    return FAILED


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that reads settings."""
    command = click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        help="Settings file; else $ORCHESTRA_CONFIG, ./orchestra.toml, ~/.config/orchestra/orchestra.toml.",
    )(command)
    return click.option(
        "--data",
        type=click.Path(path_type=Path),
        help="Folder for models, queues and logs. [default: ~/.local/share/orchestra]",
    )(command)


def nats_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--nats",
        "nats_url",
        metavar="URL",
        help="NATS server to use. [default: the one of `orchestra up` on this machine]",
    )(command)


def said(**values: Any) -> Mapping[str, Any]:
    """What the command line says, nested like the settings: `gateway__http=…`; None says nothing."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or value == ():
            continue
        *sections, last = name.split("__")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return nested
