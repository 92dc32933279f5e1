"""`orchestra status`."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from actors.bus.bus import Bus
from actors.bus.depth_reader import read_depth
from actors.bus.key_value import Bucket
from actors.bus.queue_depth import QUEUES, ClusterDepth
from actors.cli.forecast import forecast_line, forecast_of
from actors.cli.main import common, nats_option, overrides_of
from actors.cli.placement import explanations, show
from actors.cli.reach import nats_url_of
from actors.cli.servers import servers_of
from actors.cli.show import widen
from actors.cluster.registry import BUCKET
from actors.config.client import ClientSettings, load_client
from actors.launch.process import connected, run
from orchestration.messages import NodeInfo
from orchestration.placement import Needs

DISCOVERY_S = 0.3
"""Time to wait for the answers of services to a ping, which come within milliseconds."""


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
        show(await explanations(bus, needs, await nodes_of(bus)), as_json)
    return 0


async def _status(settings: ClientSettings, as_json: bool) -> int:
    async with connected(settings, nats_url_of(settings), "orchestra-status") as bus:
        nodes = await nodes_of(bus)
        services = await _services(bus)
        servers = await servers_of(bus)
        depth = await read_depth(bus)
        forecast = await forecast_of(bus)
    if as_json:
        report = {
            "nodes": [node.model_dump(mode="json") for node in nodes],
            "services": services,
            "queues": _queues(depth),
            "nats": servers.as_json(),
            "forecast": forecast.expected if forecast else {},
        }
        click.echo(json.dumps(report, indent=2))
        return 0
    console = widen(Console())
    table = Table(
        "node", "backend", "models", "busy", "cores", "memory", "provider", "age", box=None, pad_edge=False
    )
    for node in nodes:
        table.add_row(
            node.id,
            node.backend,
            ", ".join(card.name if card.loaded else f"{card.name} (offered)" for card in node.models),
            f"{node.running}/{node.slots}" + (" draining" if node.draining else ""),
            str(node.hardware.cores),
            f"{node.hardware.memory_bytes / 2**30:.0f} GiB",
            ", ".join((node.hardware.provider, *node.hardware.accelerators)),
            f"{time.time() - node.started_at:.0f} s",
        )
    console.print(table if nodes else "no nodes; start one: orchestra node --backend onnx")
    for node in nodes:
        for model, why in node.left_out.items():
            console.print(f"{node.id}: model {model} is not served: {why}", markup=False)
        if node.memory.limit_bytes and not all(card.loaded for card in node.models):
            console.print(_memory(node))
    if forecast is not None:
        console.print(forecast_line(forecast))
    for service in services:
        console.print(
            f"{service['name']}  {service['metadata'].get('session') or service['id']}  {service['version']}"
        )
    for line in servers.lines():
        console.print(line)
    console.print("  ".join(_queue_line(depth, name) for name in ("RUNS", "GENERATIONS")))
    return 0


def _memory(node: NodeInfo) -> str:
    """One line about the memory of a node that does not hold all models it offers."""
    use = node.memory
    used = sum(card.memory_bytes for card in node.models if card.loaded)
    return (
        f"{node.id}: {used / 1e6:.0f} of {use.limit_bytes / 1e6:.0f} MB for models, {use.loads} loads, "
        f"{use.unloads} unloads, {use.swaps} swaps; "
        f"{use.cold} cold starts, {use.warmed} warmed, {use.hits} hits"
    )


async def nodes_of(bus: Bus) -> list[NodeInfo]:
    """All nodes in the registry, sorted by id."""
    nodes: list[NodeInfo] = []

    def on_entry(value: bytes | None, _: str) -> None:
        if value is not None:
            nodes.append(NodeInfo.model_validate_json(value))

    await Bucket(bus, BUCKET).replay(on_entry)
    return sorted(nodes, key=lambda node: node.id)


async def _services(bus: Bus) -> list[dict[str, Any]]:
    services: list[dict[str, Any]] = []
    reply = bus.expect(lambda message: services.append(json.loads(message.data)) if message.data else None)
    await bus.publish("$SRV.PING", reply=reply)
    await asyncio.sleep(DISCOVERY_S)
    bus.forget(reply)
    return sorted(services, key=lambda service: (service["name"], service["id"]))


def _queues(depth: ClusterDepth) -> dict[str, dict[str, float]]:
    """The numbers of each queue that exists, by its name."""
    return {
        stream.name: {
            "waiting": depth.waiting(stream.name),
            "in_progress": depth.in_progress(stream.name),
            "oldest_age_s": round(depth.age_s(stream.name), 3),
        }
        for stream in depth.streams
        if stream.name in QUEUES
    }


def _queue_line(depth: ClusterDepth, queue: str) -> str:
    age = f", the oldest for {depth.age_s(queue):.0f} s" if depth.waiting(queue) else ""
    return f"{queue}: {depth.waiting(queue)} waiting{age}, {depth.in_progress(queue)} in progress"
