"""`orchestra models load` and `unload`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from actors.admin.audit import Changed
from actors.admin.nodes import ask_node
from actors.admin.requests import NotThere
from actors.bus.bus import Bus
from actors.bus.subjects import NodeAddress
from actors.cli.filters import filter_option
from actors.cli.operator import change_each, changing, record_command, run_operator
from actors.cluster.registry import live_nodes
from orchestration.errors import NoNode, UnknownModel
from orchestration.messages import LoadModel, LoadResult, UnloadModel, Wire


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.argument("name"),
        filter_option(
            "--node", "node_id", metavar="ID", help="Node. [default: all nodes that offer the model]"
        ),
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0.1),
            default=600.0,
            show_default=True,
            metavar="SECONDS",
            help="Timeout for each node.",
        ),
        changing,
    ):
        command = option(command)
    return command


@click.command("load")
@_options
def load_(**options: Any) -> None:
    """Load the model NAME into the memory of the nodes that offer it.

    Idle models are unloaded to make room. Exit code 4: all models in memory are in use. It never asks.
    """
    _everywhere(LoadModel(model=options["name"]), options)


@click.command("unload")
@_options
def unload(**options: Any) -> None:
    """Unload the model NAME, after its generations in progress. It stays on offer: the next request loads it
    again. It never asks."""
    _everywhere(UnloadModel(model=options["name"]), options)


def _everywhere(request: LoadModel | UnloadModel, options: Mapping[str, Any]) -> None:
    run_operator(options, lambda client: _ask_all(client.bus, request, options))


async def _ask_all(bus: Bus, request: LoadModel | UnloadModel, options: Mapping[str, Any]) -> None:
    """Ask the nodes one after another, with a line for each. Raises the last error at the end."""

    async def ask(node: str) -> LoadResult:
        result = await _ask(bus, node, request, options["timeout_s"])
        if result.changed:
            await record_command(bus, *_change(result), options["reason"])
        return result

    nodes = await _which(bus, request.model, options["node_id"])
    await change_each(nodes, ask, _line, as_json=options["as_json"])


async def _which(bus: Bus, name: str, node_id: str) -> list[str]:
    if node_id:
        return [node_id]
    nodes = await live_nodes(bus)
    node_ids = [node.id for node in nodes if node.serves(name)]
    if not node_ids:
        raise UnknownModel.of(name, sorted({card.name for node in nodes for card in node.models}))
    return node_ids


async def _ask(bus: Bus, node: str, request: Wire, timeout_s: float) -> LoadResult:
    """Raises the node's error, and `NoNode` if the node does not exist."""
    address = NodeAddress(node)
    subject = address.load if isinstance(request, LoadModel) else address.unload
    try:
        return LoadResult.model_validate_json(await ask_node(bus, node, subject, request, timeout_s))
    except NotThere as error:
        raise NoNode(f"no node {node!r} is alive; `orchestra status` lists them") from error


def _change(result: LoadResult) -> tuple[str, Changed]:
    """What the audit says of a load or unload."""
    made = Changed(
        target=f"{result.model} on {result.node}",
        before={"loaded": not result.loaded},
        after={"loaded": result.loaded},
        body={},
        about={"model": result.model, "node": result.node},
    )
    return f"models.{'load' if result.loaded else 'unload'}", made


def _line(result: LoadResult) -> str:
    state = "loaded" if result.loaded else "unloaded"
    took = f" in {result.seconds:.1f} s" if result.changed else " already"
    return f"{result.model} is {state}{took} on node {result.node}"
