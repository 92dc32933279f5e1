"""`orchestra runs`: list, show, watch and cancel the runs of any caller."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from actors.cli.filters import filter_option
from actors.cli.logs import moment_of
from actors.cli.main import ErrorReportingGroup
from actors.cli.operator import (
    MAX_ROWS,
    OperatorClient,
    age,
    change_each,
    changing,
    confirm,
    listing,
    print_json,
    print_table,
    run_operator,
    show_rows,
    warn_missing,
)
from actors.cli.reach import reaching
from actors.streams.run_events import NoSuchRun, RunEventReader
from orchestration.errors import InvalidRequest

ENDED_PAGE = 1000
"""Events of the log that are asked for at once."""
LISTED = 100
HEADS = ("run", "kind", "pattern", "model", "caller", "for", "steps", "process")
ENDED_HEADS = ("run", "outcome", "pattern", "model", "caller", "took", "tokens", "ended")


@click.group(cls=ErrorReportingGroup)
def runs() -> None:
    """List, show, watch and cancel the runs and jobs of any caller."""


def _filtering(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which runs are meant."""
    for option in (
        filter_option("--pattern", help="Only runs of this pattern."),
        filter_option("--model", help="Only runs that were asked to use this model."),
        filter_option("--caller", help="Only runs of this caller."),
        click.option(
            "--older-than",
            "older_than_s",
            type=click.FloatRange(min=0),
            default=0.0,
            metavar="SECONDS",
            help="Only runs that began so long ago.",
        ),
    ):
        command = option(command)
    return command


def _filter_of(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("pattern", "model", "caller", "older_than_s")}


@runs.command(name="list")
@click.option("--ended", is_flag=True, help="List those that have ended, from the log, the last one first.")
@filter_option("--since", metavar="TIME", help="With --ended: from then on: 1h, 2d, or a date.")
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_ROWS),
    help=f"Maximum number. [default: all at work; the last {LISTED} that have ended]",
)
@_filtering
@listing("the runs")
def list_runs(ended: bool, since: str, limit: int | None, as_json: bool, **options: Any) -> None:
    """List the runs and jobs at work, those that began first come first; or those that have ended."""
    wanted = _filter_of(options)
    if since and not ended:
        raise InvalidRequest("--since is for runs that have ended: add --ended")
    if ended and wanted.pop("older_than_s"):
        raise InvalidRequest("--older-than is for runs at work: use --since with --ended")

    async def at_work(client: OperatorClient) -> None:
        rows = await client.every("runs.list", **wanted)
        show_rows(rows[:limit], HEADS, _cells, as_json=as_json)

    async def past(client: OperatorClient) -> None:
        from_ = moment_of(since, "since") if since else 0.0
        rows = await _ended_runs(client, limit or LISTED, wanted | {"since": from_})
        show_rows(rows, ENDED_HEADS, _ended_cells, as_json=as_json)

    run_operator(options, past if ended else at_work)


async def _ended_runs(client: OperatorClient, limit: int, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """The last runs that ended, `limit` at most."""
    rows: list[dict[str, Any]] = []
    before = 0
    while len(rows) < limit:
        page = await client.call("runs.ended", **wanted, limit=ENDED_PAGE, before=before)
        rows += page["data"]
        before = page["next"]
        if not before:
            break
    return rows[:limit]


def _ended_cells(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["run"],
        row["data"].get("error") or row["name"].removeprefix("run."),
        *(row[name] for name in ("pattern", "model", "caller")),
        age(row["data"].get("duration_s")),
        row["data"].get("output_tokens"),
        f"{age(max(0.0, time.time() - row['at']))} ago",
    )


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        *(row[name] for name in ("id", "kind", "pattern", "model", "caller")),
        age(max(0.0, time.time() - row["started_at"])),
        row["steps"],
        row["process"],
    )


@runs.command()
@click.argument("run_id", metavar="ID")
@reaching
def show(run_id: str, **options: Any) -> None:
    """Print the run ID with its events so far as JSON."""

    async def work(client: OperatorClient) -> None:
        print_json(await client.call("runs.inspect", id=run_id))

    run_operator(options, work)


@runs.command()
@click.argument("run_id", metavar="ID")
@reaching
def watch(run_id: str, **options: Any) -> None:
    """Print the events of the run ID as they come, one JSON object a line, up to its end."""

    async def waits() -> bool:
        return False

    async def work(client: OperatorClient) -> None:
        async with RunEventReader(client.bus, run_id) as reader:
            if reader.owner is None:
                raise NoSuchRun.of(run_id)
            async for event in reader.events(waits):
                click.echo(event.data.decode())

    run_operator(options, work)


@runs.command()
@click.argument("run_ids", metavar="[ID]…", nargs=-1)
@_filtering
@click.option("--all", "everything", is_flag=True, help="Cancel all runs at work.")
@click.option("--dry-run", is_flag=True, help="Only list the runs that the filter means.")
@changing
def cancel(
    run_ids: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    reason: str,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Cancel the runs, jobs or requests with these IDs, or all runs that match a filter. Their callers get an
    error with the reason. An ID that is not known does not keep the others from being cancelled."""
    wanted = _filter_of(options)
    if run_ids and (any(wanted.values()) or everything or dry_run):
        raise InvalidRequest("name runs by their ids or by a filter, not both")
    if not (run_ids or any(wanted.values()) or everything):
        raise InvalidRequest("name runs by their ids, by a filter, or all with --all")
    if not (run_ids or reason or dry_run):
        raise InvalidRequest("add --reason: the callers of all these runs are told why")

    async def by_id(client: OperatorClient) -> None:
        await confirm(f"Cancel {', '.join(run_ids)}", yes=yes)

        async def cancel(run_id: str) -> dict[str, Any]:
            return await client.call("runs.cancel", id=run_id, reason=reason)

        def line(answer: dict[str, Any]) -> str:
            return f"{answer['id']} {'is cancelled' if answer['cancelled'] else 'had ended'}"

        await change_each(dict.fromkeys(run_ids), cancel, line, as_json=as_json)

    async def by_filter(client: OperatorClient) -> None:
        fields = {**wanted, "everything": everything, "reason": reason or ("dry run" if dry_run else "")}
        found = await client.call("runs.cancel_matching", **fields, dry_run=True)
        if not dry_run and found["count"]:
            await confirm(f"Cancel {found['count']} runs", yes=yes)
            found = await client.call("runs.cancel_matching", **fields)
        warn_missing(found)
        if as_json:
            print_json(found)
        else:
            print_table(HEADS, map(_cells, found["runs"]))
            click.echo(f"{found['count']} runs {'would be' if dry_run else 'are'} cancelled", err=True)

    run_operator(options, by_id if run_ids else by_filter)
