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
    """The module of a command, and its line in the list of commands, which so needs no import."""

    module: str
    name: str
    summary: str


COMMANDS = {
    "up": CommandEntry("actors.cli.up", "up", "Start a whole cluster on this machine."),
    "node": CommandEntry("actors.cli.roles", "node", "Serve models to a cluster, or drain a node."),
    "agents": CommandEntry("actors.cli.roles", "agents", "Run a coordinator and the agents of all roles."),
    "dispatcher": CommandEntry("actors.cli.roles", "dispatcher", "Send each generation to a node."),
    "gateway": CommandEntry(
        "actors.cli.roles", "gateway", "Serve the OpenAI API and the NATS service `orchestra`."
    ),
    "ask": CommandEntry("actors.cli.ask", "ask", "Ask one question."),
    "chat": CommandEntry("actors.cli.ask", "chat", "Chat with the cluster."),
    "status": CommandEntry("actors.cli.status", "status", "Show nodes, models, load, queues and agents."),
    "top": CommandEntry("actors.cli.top", "top", "Watch nodes, models, queues and rates."),
    "nodes": CommandEntry("actors.cli.nodes", "nodes", "List, drain, label and remove nodes."),
    "queues": CommandEntry("actors.cli.queues", "queues", "List, pause, resume and purge queues."),
    "runs": CommandEntry("actors.cli.runs", "runs", "List, watch and cancel runs of any caller."),
    "breakers": CommandEntry(
        "actors.cli.breakers", "breakers", "List circuit breakers, hold them open, or reset them."
    ),
    "cache": CommandEntry("actors.cli.cache", "cache", "Show or clear the cached responses."),
    "processes": CommandEntry(
        "actors.cli.processes", "processes", "List the processes, also those that do not answer."
    ),
    "usage": CommandEntry("actors.cli.usage", "usage", "Show requests and tokens by caller and model."),
    "jobs": CommandEntry("actors.cli.jobs", "jobs", "Submit questions, and fetch their answers later."),
    "logs": CommandEntry(
        "actors.cli.logs", "logs", "Show the events of the cluster, or ship them to MongoDB."
    ),
    "models": CommandEntry("actors.cli.models", "models", "Pull, import, list, load and unload models."),
    "patterns": CommandEntry(
        "actors.cli.patterns", "patterns", "List the patterns, or check one of your own."
    ),
    "eval": CommandEntry(
        "actors.cli.evaluate", "evaluate", "Compare patterns on questions with known answers."
    ),
    "feedback": CommandEntry("actors.cli.feedback", "feedback", "Rate the answer of a run."),
    "tuning": CommandEntry(
        "actors.cli.tuning", "tuning", "Show or delete the results that `auto` learns from."
    ),
    "knowledge": CommandEntry("actors.cli.knowledge", "knowledge", "Add, list, remove and search documents."),
    "triton": CommandEntry("actors.cli.triton", "triton", "Write and check Triton model repositories."),
    "config": CommandEntry(
        "actors.cli.config", "config", "Show settings and their sources, or change them while processes run."
    ),
    "keys": CommandEntry("actors.cli.keys", "keys", "List, add, rotate and remove API keys."),
    "reference": CommandEntry(
        "actors.cli.reference.command",
        "reference",
        "Print the reference: settings, metrics, errors, NATS, HTTP.",
    ),
}


class CommandFailed(click.ClickException):
    """An `OrchestraError` on the command line: one line, and the exit code for its kind."""

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
    """Imports the module of a command when it is used."""

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


def _print_version(context: click.Context, _: click.Parameter, show: bool) -> None:
    if show and not context.resilient_parsing:
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
    """Turn the machines you have into one LLM cluster.

    Start a cluster on this machine with `orchestra up`; then, in another terminal: orchestra ask "…"
    """


def main() -> None:
    """The entry point of the `orchestra` command."""
    root(prog_name="orchestra")


def exit_code(error: OrchestraError) -> int:
    """The exit code for this kind of error."""
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
        help="Settings file. [default: $ORCHESTRA_CONFIG, ./orchestra.toml, ~/.config/orchestra/…]",
    )(command)
    return click.option(
        "--data",
        type=click.Path(path_type=Path),
        help="Folder of models, queues and logs. [default: ~/.local/share/orchestra]",
    )(command)


def nats_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--nats",
        "nats_url",
        metavar="URL",
        help="Address of NATS. [default: that of `orchestra up` on this machine]",
    )(command)


def overrides_of(**values: Any) -> Mapping[str, Any]:
    """The values of options, nested like the settings: `gateway__http=…`. None: the option was not used."""
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
