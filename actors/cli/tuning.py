"""`orchestra tuning`: what `auto` has learnt, and how to have it forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from actors.cli.main import Reporting, common, nats_option, said
from actors.cli.reach import nats_url_of
from actors.cli.show import wide
from actors.client_settings import load_client
from actors.process import connected, run
from actors.tuning.shelf import Shelf
from orchestration.trust.counts import Counts
from orchestration.trust.records import Cost, KindRecord
from orchestration.trust.trust import JUDGE_PRIOR, JUDGE_STRENGTH, PAIR_PRIOR, PAIR_STRENGTH
from orchestration.tuning.features import KINDS, Kind


@click.group(cls=Reporting)
def tuning() -> None:
    """See what `auto` has learnt of ways to answer, and of models, or have it forgotten."""


@tuning.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object by kind of question.")
@common
@nats_option
def show(as_json: bool, data: Path | None, config_file: Path | None, nats_url: str | None) -> None:
    """Show the record of each kind of question. Judgements fade as new ones come."""

    async def work(shelf: Shelf) -> None:
        records = {kind: shelf.record(kind) for kind in KINDS if kind in shelf.records}
        if as_json:
            click.echo(json.dumps({kind: each.model_dump() for kind, each in records.items()}, indent=2))
        elif not records:
            click.echo("nothing has been learnt yet")
        else:
            _print(shelf, records)

    _reach(data, config_file, nats_url, work)


@tuning.command()
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
@click.option("--all", "everything", is_flag=True, help="Of all kinds.")
@common
@nats_option
def forget(
    kinds: tuple[Kind, ...],
    everything: bool,
    data: Path | None,
    config_file: Path | None,
    nats_url: str | None,
) -> None:
    """Begin the records of KINDS of question anew, as after models were replaced."""
    if not kinds and not everything:
        raise click.UsageError("name kinds of question, or --all")

    async def work(shelf: Shelf) -> None:
        for kind in KINDS if everything else kinds:
            await shelf.forget(kind)
        click.echo(f"forgotten: {', '.join(KINDS if everything else kinds)}")

    _reach(data, config_file, nats_url, work)


def _reach(
    data: Path | None,
    config_file: Path | None,
    nats_url: str | None,
    work: Callable[[Shelf], Coroutine[Any, Any, None]],
) -> None:
    settings = load_client(said(data=data, nats__url=nats_url), config_file)

    async def reached() -> int:
        async with connected(settings, nats_url_of(settings), "orchestra-tuning") as bus:
            shelf = Shelf(bus)
            await shelf.start()
            await work(shelf)
            await shelf.stop()
        return 0

    raise SystemExit(run(reached()))


def _print(shelf: Shelf, records: dict[Kind, KindRecord]) -> None:
    ways = Table("kind", "profile/pattern", "judged good", "judgements", "runs", "tokens", "seconds")
    models = Table("kind", "model", "right", "95 % interval", "users", "tests", "judges", "votes", "weight")
    judges = Table("kind", "judge", "as users say", "95 % interval", "words")
    copies = Table("kind", "model", "answers as", "agreed where others did not", "95 % interval", "votes")
    for kind, record in records.items():
        for pair, counts in sorted(record.pairs.items()):
            one, _, other = pair.partition("\n")
            if shelf.trust(kind).are_copies(one, other):
                alike = counts.share(PAIR_PRIOR, PAIR_STRENGTH)
                interval = f"{alike.low:.0%} to {alike.high:.0%}"
                copies.add_row(kind, one, other, f"{alike.mean:.0%}", interval, f"{counts.total:.1f}")
        for name, counts in sorted(record.judges.items()):
            agreed = counts.share(JUDGE_PRIOR, JUDGE_STRENGTH)
            interval = f"{agreed.low:.0%} to {agreed.high:.0%}"
            judges.add_row(kind, name, f"{agreed.mean:.0%}", interval, f"{counts.total:.1f}")
        for name in sorted({*record.arms, *record.costs}):
            counts, cost = record.arm(name), record.costs.get(name, Cost())
            share = f"{counts.right / counts.total:.0%}" if counts.total else "-"
            numbers = (f"{counts.total:.1f}", str(cost.runs), f"{cost.tokens:.0f}", f"{cost.seconds:.1f}")
            ways.add_row(kind, name, share, *numbers)
        trust = shelf.trust(kind)
        for name, sources in sorted(record.models.items()):
            share_ = trust.accuracy(name)
            heard = (sources.get(source, Counts()).total for source in ("user", "test", "judge", "vote"))
            models.add_row(
                kind,
                name,
                f"{share_.mean:.0%}",
                f"{share_.low:.0%} to {share_.high:.0%}",
                *(f"{total:.1f}" for total in heard),
                f"{trust.weight(name):.2f}",
            )
    console = wide(Console())
    for table in (ways, models, judges, copies):
        if table.row_count:
            table.box, table.pad_edge = None, False
            console.print(table)
