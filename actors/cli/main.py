"""The root command, its common options, and how errors become exit codes.

Exit codes: 0 done, 2 bad usage, 3 cluster not reachable, 4 refused by a limit, 5 failed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from orchestration.errors import OrchestraError

USAGE, UNREACHABLE, REFUSED, FAILED = 2, 3, 4, 5


class CommandEntry(NamedTuple):
    """Where a command is, and its line in the list of commands, so that the list needs no import."""

    module: str
    name: str
    summary: str


COMMANDS = {
    "up": CommandEntry("actors.cli.up", "up", "Start everything on this machine."),
    "node": CommandEntry(
        "actors.cli.roles", "node", "Serve models to a cluster from this machine, or drain a node."
    ),
    "agents": CommandEntry("actors.cli.roles", "agents", "Run the coordinator and the specialists."),
    "dispatcher": CommandEntry("actors.cli.roles", "dispatcher", "Place waiting generations on nodes."),
    "gateway": CommandEntry(
        "actors.cli.roles", "gateway", "Serve the OpenAI API and the NATS service `orchestra`."
    ),
    "ask": CommandEntry("actors.cli.ask", "ask", "Ask the cluster."),
    "chat": CommandEntry("actors.cli.ask", "chat", "Talk to the cluster, turn by turn."),
    "status": CommandEntry("actors.cli.status", "status", "Show nodes, models, load, queues and agents."),
    "jobs": CommandEntry("actors.cli.jobs", "jobs", "Submit work and fetch its answer later."),
    "models": CommandEntry("actors.cli.models", "models", "Pull, import, list, load and unload models."),
    "patterns": CommandEntry("actors.cli.patterns", "patterns", "List the patterns, or try one of your own."),
    "eval": CommandEntry(
        "actors.cli.evaluate", "evaluate", "Measure patterns on questions with known answers."
    ),
    "feedback": CommandEntry("actors.cli.feedback", "feedback", "Rate the answer of a run."),
    "tuning": CommandEntry("actors.cli.tuning", "tuning", "Show or forget what `auto` has learnt."),
    "knowledge": CommandEntry("actors.cli.knowledge", "knowledge", "Add, list, remove and search documents."),
    "triton": CommandEntry("actors.cli.triton", "triton", "Write and check Triton model repositories."),
    "config": CommandEntry("actors.cli.config", "config", "Show every setting in force and its source."),
    "reference": CommandEntry(
        "actors.cli.reference.command", "reference", "Print every setting, metric, error and subject."
    ),
}


class CommandFailed(click.ClickException):
    """An `OrchestraError` as the command line tells it: one line, and the exit code of its kind."""

    def __init__(self, error: OrchestraError) -> None:
        super().__init__(error.message)
        self.error = error

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        return exit_code(self.error)

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"orchestra: {self.message}", file=file, err=True)


class ErrorReportingGroup(click.Group):
    """A group whose commands may raise `OrchestraError`."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from orchestration.errors import OrchestraError  # here: pydantic takes longer than a help text

            if not isinstance(error, OrchestraError):
                raise
            raise CommandFailed(error) from error


class LazyGroup(ErrorReportingGroup):
    """Imports a command's module when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command: click.Command = getattr(importlib.import_module(place.module), place.name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in COMMANDS.items()])


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from actors import __version__

        click.echo(f"orchestra, version {__version__}")
        context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def root() -> None:
    """Turn the machines you have into one LLM cluster, and ask it.

    Start everything here with `orchestra up`, then `orchestra ask "…"`.
    """


def main() -> None:
    """The entry point of the `orchestra` command."""
    root(prog_name="orchestra")


def exit_code(error: OrchestraError) -> int:
    """The exit code that tells this kind of error apart."""
    from orchestration.errors import (
        BudgetExceeded,
        BusUnavailable,
        InvalidRequest,
        NoNode,
        Overloaded,
        Unavailable,
        UnknownModel,
    )

    if isinstance(error, InvalidRequest | UnknownModel):
        return USAGE
    if isinstance(error, Overloaded | BudgetExceeded):
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


def given_settings(**values: Any) -> Mapping[str, Any]:
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
