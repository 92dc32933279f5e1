"""`orchestra models load` and `unload`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from actors.admin.audit import Changed
from actors.bus.bus import Bus
from actors.bus.subjects import NodeAddress
from actors.cli.main import common, nats_option, overrides_of
from actors.cli.operator import record_command
from actors.cli.reach import nats_url_of
from actors.cluster.registry import live_nodes
from actors.config.client import ClientSettings, load_client
from actors.launch.process import connected, run
from actors.runtime.envelope import Envelope
from actors.runtime.service import ERROR
from orchestration.errors import NoNode, NoResponders, OrchestraError, UnknownModel, from_body
from orchestration.messages import ErrorBody, LoadModel, LoadResult, UnloadModel, Wire


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.argument("name"),
        click.option(
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
        nats_option,
        common,
    ):
        command = option(command)
    return command


@click.command("load")
@_options
def load_(name: str, node_id: str | None, timeout_s: float, **common_options: Any) -> None:
    """Load the model NAME into the memory of the nodes that offer it.

    Idle models are unloaded to make room. Exit code 4: all models in memory are in use.
    """
    _everywhere(name, node_id, timeout_s, LoadModel(model=name), **common_options)


@click.command("unload")
@_options
def unload(name: str, node_id: str | None, timeout_s: float, **common_options: Any) -> None:
    """Unload the model NAME, after its generations in progress. It stays on offer: the next request loads it
    again."""
    _everywhere(name, node_id, timeout_s, UnloadModel(model=name), **common_options)


def _everywhere(
    name: str,
    node_id: str | None,
    timeout_s: float,
    request: Wire,
    *,
    config_file: Path | None,
    data: Path | None,
    nats_url: str | None,
) -> None:
    settings = load_client(overrides_of(data=data, nats__url=nats_url), config_file)
    raise SystemExit(run(_ask_all(settings, name, node_id, request, timeout_s)))


async def _ask_all(
    settings: ClientSettings, name: str, node_id: str | None, request: Wire, timeout_s: float
) -> int:
    """Ask the nodes one after another, with a line for each. Raises the first error at the end."""
    failed: OrchestraError | None = None
    async with connected(settings, nats_url_of(settings), "orchestra-models") as bus:
        for node in await _which(bus, name, node_id):
            try:
                result = await _ask(bus, node, request, timeout_s)
                click.echo(_line(result))
                if result.changed:
                    await record_command(bus, *_change(result))
            except OrchestraError as error:
                if failed is not None:
                    click.echo(f"orchestra: {failed.message}", err=True)
                failed = failed or error
    if failed is not None:
        raise failed
    return 0


async def _which(bus: Bus, name: str, node_id: str | None) -> list[str]:
    if node_id is not None:
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
    headers = Envelope.within(timeout_s).headers()
    try:
        answer = await bus.request(
            subject, request.model_dump_json().encode(), headers=headers, timeout=timeout_s
        )
    except NoResponders as error:
        raise NoNode(f"no node {node!r} is alive; `orchestra status` lists them") from error
    if answer.header(ERROR):
        raise from_body(ErrorBody.model_validate_json(answer.data))
    return LoadResult.model_validate_json(answer.data)


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
