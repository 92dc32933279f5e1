"""`orchestra node drain`."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from actors.admin.audit import Changed
from actors.bus.bus import Bus
from actors.bus.subjects import NodeAddress
from actors.cli.operator import changing, record_command, show_answer
from actors.cli.reach import on_cluster
from actors.cluster.registry import Registry
from orchestration.errors import NoNode, NoResponders


@click.command()
@click.argument("node_id", metavar="ID")
@changing
def drain(node_id: str, reason: str, as_json: bool, **options: Any) -> None:
    """Stop the node ID: it takes no new work, and finishes its generations or moves them to other nodes.

    Returns when it has left; `node.drain_timeout_s` of that node bounds the wait. It never asks.
    """
    on_cluster(options, "orchestra-drain", lambda bus: _drain(bus, node_id, reason))
    show_answer({"id": node_id, "state": "left"}, f"node {node_id} has left", as_json=as_json)


async def _drain(bus: Bus, node_id: str, reason: str) -> None:
    registry = Registry(bus)
    gone = asyncio.Event()
    registry.on_gone.append(lambda node: gone.set() if node == node_id else None)
    await registry.start()
    try:
        click.echo(f"node {node_id} leaves: {await _ask(bus, node_id)} generations to finish", err=True)
        made = Changed(
            target=node_id,
            before={"state": "serving"},
            after={"state": "draining"},
            body={},
            about={"node": node_id},
        )
        await record_command(bus, "nodes.drain", made, reason)
        if any(node.id == node_id for node in (*registry.nodes.values(), *registry.draining.values())):
            await gone.wait()
    finally:
        await registry.stop()


async def _ask(bus: Bus, node_id: str) -> int:
    """The generations that the node has to finish. Raises `NoNode` if the node does not exist."""
    try:
        return int((await bus.request(NodeAddress(node_id).drain)).data)
    except NoResponders as error:
        raise NoNode(f"no node {node_id!r} is alive; `orchestra status` lists them") from error
