"""`orchestra models load|unload`: what is in the memory of the nodes that run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from actors.bus.bus import Bus
from actors.bus.subjects import NodeAddress
from actors.cli.main import common, given_settings, nats_option
from actors.cli.reach import nats_url_of
from actors.cli.status import nodes_of
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
            "--node", "node_id", metavar="ID", help="Only there. [default: all nodes that offer it]"
        ),
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0.1),
            default=600.0,
            show_default=True,
            metavar="SECONDS",
            help="For each node.",
        ),
        nats_option,
        common,
    ):
        command = option(command)
    return command


@click.command("load")
@_options
def load_(name: str, node_id: str | None, timeout_s: float, **common_options: Any) -> None:
    """Bring the model NAME into the memory of the nodes that offer it.

    Models on which nothing runs make room. Exit code 4 when what is there is in use.
    """
    _everywhere(name, node_id, timeout_s, LoadModel(model=name), **common_options)


@click.command("unload")
@_options
def unload(name: str, node_id: str | None, timeout_s: float, **common_options: Any) -> None:
    """Free the memory of the model NAME, once what runs on it has ended. It stays on offer: the next
    generation that asks for it has it loaded again."""
    _everywhere(name, node_id, timeout_s, UnloadModel(model=name), **common_options)


def _everywhere(
    name: str,
    node_id: str | None,
    timeout_s: float,
    wanted: Wire,
    *,
    config_file: Path | None,
    data: Path | None,
    nats_url: str | None,
) -> None:
    settings = load_client(given_settings(data=data, nats__url=nats_url), config_file)
    raise SystemExit(run(_ask_all(settings, name, node_id, wanted, timeout_s)))


async def _ask_all(
    settings: ClientSettings, name: str, node_id: str | None, wanted: Wire, timeout_s: float
) -> int:
    """One after another. Raises the first error once all were asked, after a line for each."""
    failed: OrchestraError | None = None
    async with connected(settings, nats_url_of(settings), "orchestra-models") as bus:
        for node in await _which(bus, name, node_id):
            try:
                click.echo(_line(await _ask(bus, node, wanted, timeout_s)))
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
    nodes = await nodes_of(bus)
    found = [node.id for node in nodes if node.serves(name)]
    if not found:
        raise UnknownModel.of(name, sorted({card.name for node in nodes for card in node.models}))
    return found


async def _ask(bus: Bus, node: str, wanted: Wire, timeout_s: float) -> LoadResult:
    """Raises what the node answers, and `NoNode` when it is not there."""
    address = NodeAddress(node)
    subject = address.load if isinstance(wanted, LoadModel) else address.unload
    headers = Envelope.within(timeout_s).headers()
    try:
        answer = await bus.request(
            subject, wanted.model_dump_json().encode(), headers=headers, timeout=timeout_s
        )
    except NoResponders as error:
        raise NoNode(f"no node {node!r} is alive; `orchestra status` lists them") from error
    if answer.header(ERROR):
        raise from_body(ErrorBody.model_validate_json(answer.data))
    return LoadResult.model_validate_json(answer.data)


def _line(found: LoadResult) -> str:
    state = "loaded" if found.loaded else "unloaded"
    took = f" in {found.seconds:.1f} s" if found.changed else " already"
    return f"{found.model} is {state}{took} on node {found.node}"
