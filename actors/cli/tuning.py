"""`orchestra tuning`: show or delete the results that `auto` learns from."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from rich.console import Console

from actors.admin.audit import Changed
from actors.bus.bus import Bus
from actors.cli.learnt import LearnedKind, tables
from actors.cli.main import ErrorReportingGroup
from actors.cli.operator import changing, record_command, show_answer
from actors.cli.reach import on_cluster, reaching
from actors.cli.show import widen
from actors.config.client import SECTIONS
from actors.config.layers import merged_layers, settings_error
from actors.learning.record_store import RecordStore
from actors.learning.settings import LearningSettings
from orchestration.query_analysis.features import KINDS, Kind
from orchestration.trust.priors import Quality


@click.group(cls=ErrorReportingGroup)
def tuning() -> None:
    """Show or delete the results of patterns and models that `auto` learns from."""


@tuning.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, by kind of question.")
@reaching
def show(as_json: bool, **options: Any) -> None:
    """Show the results of patterns and models for each kind of question, the best first.

    For a model, `right` is the share of right answers, with its interval, and `beforehand` the assumed share
    before the first answer. Then come the numbers of judgements by their source, and the weight of its vote.
    Older judgements count less.
    """

    async def work(bus: Bus, store: RecordStore) -> None:
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

    _with_store(options, work)


@tuning.command()
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
@click.option("--all", "everything", is_flag=True, help="Delete the results of all kinds.")
@changing
def forget(kinds: tuple[Kind, ...], everything: bool, reason: str, as_json: bool, **options: Any) -> None:
    """Delete the results for KINDS of question, for example after models were replaced. It never asks."""
    if not kinds and not everything:
        raise click.UsageError("name kinds of question, or --all")
    forgotten = KINDS if everything else tuple(dict.fromkeys(kinds))

    async def work(bus: Bus, store: RecordStore) -> None:
        for kind in forgotten:
            await store.reset(kind)
        made = Changed(target=", ".join(forgotten), before={"learnt": True}, after=None, body={})
        await record_command(bus, "tuning.forget", made, reason)
        show_answer(list(forgotten), f"forgotten: {', '.join(forgotten)}", as_json=as_json)

    _with_store(options, work)


def _with_store(
    options: Mapping[str, Any], work: Callable[[Bus, RecordStore], Coroutine[Any, Any, None]]
) -> None:
    async def reached(bus: Bus) -> None:
        store = RecordStore(bus, _qualities(options["config_file"]))
        await store.start()
        await work(bus, store)
        await store.stop()

    on_cluster(options, "orchestra-tuning", reached)


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
