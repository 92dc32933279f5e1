"""What all commands of operators share: the call over NATS, and the question before a change."""

from __future__ import annotations

import getpass
import json
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.admin.audit import Changed, RecordNotStored, record_direct
from actors.admin.requests import ChangeRequest
from actors.bus.bus import Bus
from actors.cli.main import common, nats_option, overrides_of
from actors.cli.reach import nats_url_of
from actors.cli.show import widen
from actors.config.client import load_client
from actors.launch.process import connected, run
from actors.runtime.service_client import admin_call
from orchestration.errors import InvalidRequest

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


Work = Callable[[OperatorClient], Awaitable[None]]


def reaching(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that reaches the cluster; `run_operator` reads them."""
    return common(nats_option(command))


def changing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that changes something."""
    command = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")(command)
    command = click.option("--yes", is_flag=True, help="Change it without a question.")(command)
    command = click.option("--reason", default="", metavar="TEXT", help="Why; it is recorded.")(command)
    return reaching(command)


def run_operator(options: Mapping[str, Any], work: Work) -> None:
    """Do `work` on a connection to the cluster that the options name."""
    settings = load_client(
        overrides_of(data=options["data"], nats__url=options["nats_url"]), options["config_file"]
    )

    async def reach() -> None:
        async with connected(settings, nats_url_of(settings), "orchestra-operator") as bus:
            await work(OperatorClient(bus))

    run(reach())


def confirm(question: str, *, yes: bool) -> None:
    """Ask before a change, unless `yes`. Raises `InvalidRequest` where nobody can answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidRequest(f"{question}: add --yes, as nobody can be asked here")
    click.confirm(f"{question}?", abort=True, err=True)


def warn_missing(answer: Mapping[str, Any]) -> None:
    """Say which processes did not answer."""
    if answer.get("missing"):
        click.echo(f"orchestra: no answer in time from: {', '.join(answer['missing'])}", err=True)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table on stdout."""
    table = Table(*heads, box=None, pad_edge=False)
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
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def operator_name() -> str:
    """The name of this machine's user in the audit, such as `alice@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = "unknown"
    name = f"{user}@{socket.gethostname().partition('.')[0]}"
    return re.sub(r"[^A-Za-z0-9_.@-]", "-", name)[:MAX_NAME]
