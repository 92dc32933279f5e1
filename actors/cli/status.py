"""`orchestra status`."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.text import Text

from actors.admin.overview import OverviewReader
from actors.bus.bus import Bus
from actors.cli.forecast import LEAST_EXPECTED, forecast_line, forecast_of
from actors.cli.operator import print_json
from actors.cli.overview_picture import Shape, draw_overview
from actors.cli.placement import explanations, show
from actors.cli.reach import on_cluster, reaching
from actors.cli.show import widen
from actors.cluster.registry import live_nodes
from orchestration.placement import Needs


@click.command()
@reaching
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--explain",
    "model",
    metavar="MODEL",
    help="Show the node that a generation of MODEL would go to now, and why.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="K=V",
    help="With --explain: label that the node must have; repeatable.",
)
def status(as_json: bool, model: str | None, labels: tuple[str, ...], **options: Any) -> None:
    """Show what is running: nodes with their models and load, agents, gateways, NATS servers, and the
    queues."""
    if model is None:
        on_cluster(options, "orchestra-status", lambda bus: _status(bus, as_json))
        return
    needs = Needs(model=model, labels=frozenset(_label(text) for text in labels))
    on_cluster(options, "orchestra-status", lambda bus: _explain(bus, needs, as_json))


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not K=V", param_hint="--label")
    return name, value


async def _explain(bus: Bus, needs: Needs, as_json: bool) -> None:
    show(await explanations(bus, needs, await live_nodes(bus)), as_json)


async def _status(bus: Bus, as_json: bool) -> None:
    overview = await OverviewReader(bus).read(with_metrics=False)
    forecast = await forecast_of(bus)
    expected = forecast.expected if forecast else {}
    if as_json:
        print_json(overview.model_dump(mode="json") | {"forecast": expected})
        return
    console = widen(Console())
    console.print(draw_overview(overview, Shape.of(console.width)))
    if forecast is not None and any(count >= LEAST_EXPECTED for count in expected.values()):
        console.print(Text("forecast  ", style="bold") + Text(forecast_line(forecast), style="dim"))
