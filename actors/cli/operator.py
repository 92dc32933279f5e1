"""What all commands of operators share: the call over NATS, and the question before a change."""

from __future__ import annotations

import getpass
import json
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.admin.audit import Changed, RecordNotStored, record_direct
from actors.admin.requests import ChangeRequest
from actors.bus.bus import Bus
from actors.cli.lines import LineReader
from actors.cli.reach import on_cluster, reaching
from actors.cli.show import widen
from actors.cluster.orders import Order
from actors.config.cluster_settings import MAX_REASON
from actors.runtime.service_client import admin_call
from orchestration.errors import InvalidRequest, OrchestraError

MAX_NAME = 64
MAX_ROWS = 10_000
"""Maximum entries of a list that a command shows."""


@dataclass(frozen=True, slots=True)
class OperatorClient:
    """Calls the operations of operators, in the name of this machine's user."""

    bus: Bus

    async def call(self, verb: str, **body: Any) -> dict[str, Any]:
        """The answer of `orchestra.admin.<verb>`. Raises the error that the cluster answered."""
        return await admin_call(self.bus, verb, body, operator_name())

    async def call_within(self, seconds: float, verb: str, **body: Any) -> dict[str, Any]:
        """As `call`, for what may take long."""
        return await admin_call(self.bus, verb, body, operator_name(), seconds)

    async def every(self, verb: str, **body: Any) -> list[dict[str, Any]]:
        """The entries of all pages of a list, `MAX_ROWS` at most."""
        rows: list[dict[str, Any]] = []
        after = ""
        while len(rows) < MAX_ROWS:
            page = await self.call(verb, **body, limit=1000, after=after)
            rows += page["data"]
            warn_missing(page)
            after = page["next"]
            if not after:
                break
        return rows


T = TypeVar("T")
Work = Callable[[OperatorClient], Awaitable[None]]


def listing(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of a command that shows `what`, as a table or as JSON."""

    def options(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON.")(command)
        return reaching(command)

    return options


def changing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that changes something."""
    command = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")(command)
    command = click.option("--yes", is_flag=True, help="Change it without a question.")(command)
    command = click.option(
        "--reason", default="", callback=_short, metavar="TEXT", help="Why; it is recorded."
    )(command)
    return reaching(command)


def _short(context: click.Context, option: click.Parameter, value: str) -> str:
    """Refuse a reason that the record of the change could not keep, before anything is changed."""
    if len(value) > MAX_REASON:
        raise click.BadParameter(f"it has {len(value)} characters; the limit is {MAX_REASON}")
    return value


def run_operator(options: Mapping[str, Any], work: Work) -> None:
    """Do `work` on a connection to the cluster that the options name."""
    on_cluster(options, "orchestra-operator", lambda bus: work(OperatorClient(bus)))


async def confirm(question: str, *, yes: bool) -> None:
    """Ask before a change, unless `yes`. The connection stays alive meanwhile. Raises `InvalidRequest` where
    nobody can answer, and `click.Abort` for another answer than `y`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidRequest(f"{question}: add --yes, as nobody can be asked here")
    click.echo(f"{question}? [y/N]: ", nl=False, err=True)
    if (await LineReader().next()).lower() not in ("y", "yes"):
        raise click.Abort


async def change_each(
    items: Iterable[T], change: Callable[[T], Awaitable[Any]], line: Callable[[Any], str], *, as_json: bool
) -> None:
    """Do `change` with each item, also after a failure. Print what each did: a line, unless that is '', or
    all in one JSON list. Then print the failures, and raise the last one, which is printed too."""
    made: list[Any] = []
    failures: list[OrchestraError] = []
    for item in items:
        try:
            made.append(await change(item))
        except OrchestraError as error:
            failures.append(error)
            continue
        if not as_json and (text := line(made[-1])):
            click.echo(text)
    if as_json:
        print_json(made)
    for failure in failures[:-1]:
        click.echo(f"orchestra: {failure.message}", err=True)
    if failures:
        raise failures[-1]


def warn_missing(answer: Mapping[str, Any]) -> None:
    """Say which processes did not answer."""
    if answer.get("missing"):
        click.echo(f"orchestra: no answer in time from: {', '.join(answer['missing'])}", err=True)


def show_rows(
    rows: Sequence[Any], heads: Sequence[str], cells: Callable[[Any], Sequence[Any]], *, as_json: bool
) -> None:
    """Print the entries of a list, as JSON or as a table with a line of `cells` for each."""
    if as_json:
        print_json(rows)
    else:
        print_table(heads, map(cells, rows))


def show_answer(answer: Any, line: str, *, as_json: bool) -> None:
    """Print what a change did, as JSON or in one line."""
    if as_json:
        print_json(answer)
    else:
        click.echo(line)


def order_text(order: Mapping[str, Any] | None) -> str:
    """Who gave a standing order and why, such as `by olga: repair`; '' for None."""
    return "" if order is None else Order.model_validate(order).text


def print_table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table on stdout. A cell without room goes on in the next line: a name that is cut off cannot be
    copied. The first cells, which are names, are the last to lose their room."""
    table = Table(box=None, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    widen(Console()).print(table)


def age(seconds: float | None) -> str:
    """A duration for people, such as `3 min`; '' for None."""
    if seconds is None:
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


async def record_command(bus: Bus, action: str, made: Changed, reason: str = "") -> None:
    """Record a change that this command made without a gateway; say so where that cannot be done."""
    try:
        await record_direct(bus, action, operator_name(), made, ChangeRequest(reason=reason))
    except RecordNotStored as error:
        click.echo(f"orchestra: {error.message}", err=True)


def print_json(value: Any) -> None:
    """Print a value, which may have messages in it."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=to_jsonable_python))


def operator_name() -> str:
    """The name of this machine's user in the audit, such as `alice@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = "unknown"
    name = f"{user}@{socket.gethostname().partition('.')[0]}"
    return re.sub(r"[^A-Za-z0-9_.@-]", "-", name)[:MAX_NAME]
