"""`orchestra tuning`: what `auto` has learnt, and how to have it forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from rich.console import Console

from actors.cli.learnt import LearnedKind, tables
from actors.cli.main import ErrorReportingGroup, common, given_settings, nats_option
from actors.cli.reach import nats_url_of
from actors.cli.show import widen
from actors.config.client import SECTIONS, load_client
from actors.config.layers import merged_layers, settings_error
from actors.launch.process import connected, run
from actors.learning.record_store import RecordStore
from actors.learning.settings import LearningSettings
from orchestration.query_analysis.features import KINDS, Kind
from orchestration.trust.priors import Quality


@click.group(cls=ErrorReportingGroup)
def tuning() -> None:
    """See what `auto` has learnt of ways to answer, and of models, or have it forgotten."""


@tuning.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object by kind of question.")
@common
@nats_option
def show(as_json: bool, data: Path | None, config_file: Path | None, nats_url: str | None) -> None:
    """Show how good ways to answer and models were at each kind of question, the best first.

    Of a model, `right` is the share of right answers, with its interval, and `beforehand` what was thought of
    it before any answer. Then come the judgements, by who gave them, and what its vote counts. Judgements
    fade as new ones come.
    """

    async def work(store: RecordStore) -> None:
        learnt = [
            LearnedKind(kind, store.record(kind), store.trust(kind))
            for kind in KINDS
            if kind in store.records
        ]
        if as_json:
            click.echo(json.dumps({each.kind: each.as_json() for each in learnt}, indent=2))
        elif not learnt:
            click.echo("nothing has been learnt yet")
        else:
            _print(learnt)

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

    async def work(store: RecordStore) -> None:
        for kind in KINDS if everything else kinds:
            await store.reset(kind)
        click.echo(f"forgotten: {', '.join(KINDS if everything else kinds)}")

    _reach(data, config_file, nats_url, work)


def _reach(
    data: Path | None,
    config_file: Path | None,
    nats_url: str | None,
    work: Callable[[RecordStore], Coroutine[Any, Any, None]],
) -> None:
    settings = load_client(given_settings(data=data, nats__url=nats_url), config_file)

    async def reached() -> int:
        async with connected(settings, nats_url_of(settings), "orchestra-tuning") as bus:
            store = RecordStore(bus, _qualities(config_file))
            await store.start()
            await work(store)
            await store.stop()
        return 0

    raise SystemExit(run(reached()))


def _qualities(file: Path | None) -> Quality:
    """What the settings say of models, as the agents read it."""
    merged, origins = merged_layers({}, file, SECTIONS)
    agents = merged.get("agents", {})
    auto = agents.get("auto", {}) if isinstance(agents, Mapping) else {}
    try:
        return LearningSettings.model_validate(auto).quality
    except ValidationError as error:
        raise settings_error(error, LearningSettings, origins, "agents.auto") from error


def _print(learnt: Sequence[LearnedKind]) -> None:
    found = tables()
    for each in learnt:
        each.add_to(found)
    console = widen(Console())
    for table in found.values():
        if table.row_count:
            console.print(table)
    for each in learnt:
        if each.vote_vs_best_text():
            console.print(each.vote_vs_best_text())
