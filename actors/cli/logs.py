"""`orchestra logs`: the central log, read from its stream; and `orchestra logs ship` to MongoDB."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from actors.bus.bus import Bus
from actors.cli.filters import filter_option
from actors.cli.main import ErrorReportingGroup
from actors.cli.reach import on_cluster, reaching
from actors.launch.process import stop_on_signals, until
from actors.logs.display import event_json, event_line
from actors.logs.filter import LogFilter
from actors.logs.reader import MAX_LIMIT, LogReader, StoredEvent
from orchestration.errors import InvalidRequest
from orchestration.log_events import LogKind, LogLevel

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LISTED = 100
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
Show = Callable[[StoredEvent], None]


def moment_of(text: str, name: str) -> float:
    """The Unix time of `1h`, which is an hour ago, or of a date. Raises `InvalidRequest`."""
    if found := _DURATION.fullmatch(text.strip()):
        return time.time() - float(found[1]) * UNITS[found[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(
            f"--{name} {text!r} is neither a duration such as 90s, 30m, 1h or 2d, nor a time such as "
            "2026-11-30T18:00"
        ) from None


class LogsGroup(ErrorReportingGroup):
    """Imports the role `ship` when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["ship"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "ship":
            return None
        from actors.cli.ship import ship

        return ship


@click.group(cls=LogsGroup, invoke_without_command=True)
@filter_option("--run", "run_id", metavar="ID", help="Show the story of this run, job or request.")
@filter_option("--trace", metavar="ID", help="Show the story of this trace.")
@filter_option("--since", metavar="TIME", help="Show events from this time on: 1h, 2d, or a date.")
@filter_option("--until", "until_", metavar="TIME", help="Show events up to this time.")
@click.option(
    "--level", type=click.Choice([each.value for each in LogLevel]), default="debug", help="Minimum level."
)
@filter_option("--caller", metavar="NAME", help="Show events of this caller.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([each.value for each in LogKind]),
    multiple=True,
    help="Show this kind of event; repeatable.",
)
@filter_option("--model", metavar="NAME", help="Show events of this model.")
@filter_option("--node", metavar="ID", help="Show events of this node.")
@click.option(
    "--limit", type=click.IntRange(1, MAX_LIMIT), default=LISTED, show_default=True, help="Maximum events."
)
@click.option("--follow", "-f", is_flag=True, help="Go on with new events until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@reaching
@click.pass_context
def logs(context: click.Context, /, **options: Any) -> None:
    """Show the events of the cluster: requests, runs, steps, nodes, errors, and what operators changed."""
    if context.invoked_subcommand is not None:
        return
    wanted = _filter(options)
    on_cluster(options, "orchestra-logs", lambda bus: _show(bus, wanted, options))


def _filter(options: dict[str, Any]) -> LogFilter:
    since = moment_of(options["since"], "since") if options["since"] else 0.0
    until_ = moment_of(options["until_"], "until") if options["until_"] else 0.0
    if 0.0 < until_ < since:
        raise InvalidRequest(f"--until {options['until_']} is before --since {options['since']}")
    return LogFilter(
        level=LogLevel(options["level"]),
        kinds=tuple(LogKind(kind) for kind in options["kinds"]),
        run=options["run_id"],
        trace=options["trace"].lower(),
        caller=options["caller"],
        model=options["model"],
        node=options["node"],
        since=since,
        until=until_,
    )


async def _show(bus: Bus, wanted: LogFilter, options: dict[str, Any]) -> None:
    reader = LogReader(bus, own_connection=False)
    limit = MAX_LIMIT if wanted.is_story else options["limit"]
    events = await _newest(reader, wanted, limit)
    show = _shown(wanted, events, as_json=options["as_json"])
    for stored in events:
        show(stored)
    if not events and not options["follow"] and not options["as_json"]:
        click.echo("no event matches", err=True)
    if not options["follow"]:
        return

    async def follow() -> None:
        after = max((stored.sequence for stored in events), default=None)
        async for stored in reader.follow(wanted, after=after):
            show(stored)

    await until(stop_on_signals(), follow)


async def _newest(reader: LogReader, wanted: LogFilter, limit: int) -> list[StoredEvent]:
    """The newest events, up to `limit`, in the order of time."""
    found: list[StoredEvent] = []
    before: int | None = None
    while len(found) < limit:
        page = await reader.page(wanted, limit=limit - len(found), before=before)
        found += page.events
        before = page.before
        if before is None:
            break
    return sorted(found, key=lambda stored: (stored.event.at, stored.sequence))


def _shown(wanted: LogFilter, events: list[StoredEvent], *, as_json: bool) -> Show:
    since = events[0].event.at if wanted.is_story and events else None

    def show(stored: StoredEvent) -> None:
        if as_json:
            click.echo(json.dumps(event_json(stored), ensure_ascii=False))
        else:
            click.echo(event_line(stored.event, since=since))

    return show
