"""`orchestra status`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from actors.admin.overview import OverviewReader
from actors.cli.forecast import LEAST_EXPECTED, forecast_line, forecast_of
from actors.cli.main import common, nats_option, overrides_of
from actors.cli.overview_picture import Shape, draw_overview
from actors.cli.placement import explanations, show
from actors.cli.reach import nats_url_of
from actors.cli.show import widen
from actors.cluster.registry import live_nodes
from actors.config.client import ClientSettings, load_client
from actors.launch.process import connected, run
from orchestration.placement import Needs


@click.command()
@common
@nats_option
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
def status(
    config_file: Path | None,
    data: Path | None,
    nats_url: str | None,
    as_json: bool,
    model: str | None,
    labels: tuple[str, ...],
) -> None:
    """Show what is running: nodes with their models and load, agents, gateways, NATS servers, and the
    queues."""
    settings = load_client(overrides_of(data=data, nats__url=nats_url), config_file)
    if model is None:
        raise SystemExit(run(_status(settings, as_json)))
    needs = Needs(model=model, labels=frozenset(_label(text) for text in labels))
    raise SystemExit(run(_explain(settings, needs, as_json)))


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not K=V", param_hint="--label")
    return name, value


async def _explain(settings: ClientSettings, needs: Needs, as_json: bool) -> int:
    async with connected(settings, nats_url_of(settings), "orchestra-status") as bus:
        show(await explanations(bus, needs, await live_nodes(bus)), as_json)
    return 0


async def _status(settings: ClientSettings, as_json: bool) -> int:
    async with connected(settings, nats_url_of(settings), "orchestra-status") as bus:
        overview = await OverviewReader(bus).read(with_metrics=False)
        forecast = await forecast_of(bus)
    expected = forecast.expected if forecast else {}
    if as_json:
        click.echo(json.dumps(overview.model_dump(mode="json") | {"forecast": expected}, indent=2))
        return 0
    console = widen(Console())
    console.print(draw_overview(overview, Shape.of(console.width)))
    if forecast is not None and any(count >= LEAST_EXPECTED for count in expected.values()):
        console.print(Text("forecast  ", style="bold") + Text(forecast_line(forecast), style="dim"))
    return 0
