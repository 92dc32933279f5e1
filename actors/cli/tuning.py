"""`orchestra tuning`: show or delete the results that `auto` learns from."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from rich.console import Console

from actors.cli.learnt import LearnedKind, tables
from actors.cli.main import ErrorReportingGroup, common, nats_option, overrides_of
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
    """Show or delete the results of patterns and models that `auto` learns from."""


@tuning.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, by kind of question.")
@common
@nats_option
def show(as_json: bool, data: Path | None, config_file: Path | None, nats_url: str | None) -> None:
    """Show the results of patterns and models for each kind of question, the best first.

    For a model, `right` is the share of right answers, with its interval, and `beforehand` the assumed share
    before the first answer. Then come the numbers of judgements by their source, and the weight of its vote.
    Older judgements count less.
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
@click.option("--all", "everything", is_flag=True, help="Delete the results of all kinds.")
@common
@nats_option
def forget(
    kinds: tuple[Kind, ...],
    everything: bool,
    data: Path | None,
    config_file: Path | None,
    nats_url: str | None,
) -> None:
    """Delete the results for KINDS of question, for example after models were replaced."""
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
    settings = load_client(overrides_of(data=data, nats__url=nats_url), config_file)

    async def reached() -> int:
        async with connected(settings, nats_url_of(settings), "orchestra-tuning") as bus:
            store = RecordStore(bus, _qualities(config_file))
            await store.start()
            await work(store)
            await store.stop()
        return 0

    raise SystemExit(run(reached()))


def _qualities(file: Path | None) -> Quality:
    """The qualities of models in the settings."""
    merged, origins = merged_layers({}, file, SECTIONS)
    agents = merged.get("agents", {})
    auto = agents.get("auto", {}) if isinstance(agents, Mapping) else {}
    try:
        return LearningSettings.model_validate(auto).quality
    except ValidationError as error:
        raise settings_error(error, LearningSettings, origins, "agents.auto") from error


def _print(learnt: Sequence[LearnedKind]) -> None:
    all_tables = tables()
    for each in learnt:
        each.add_to(all_tables)
    console = widen(Console())
    for table in all_tables.values():
        if table.row_count:
            console.print(table)
    for each in learnt:
        if each.vote_vs_best_text():
            console.print(each.vote_vs_best_text())
