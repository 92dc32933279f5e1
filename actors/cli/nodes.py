"""`orchestra nodes`: list, show, drain, label and remove nodes."""

from __future__ import annotations

from typing import Any

import click

from actors.cli.filters import by_name
from actors.cli.main import ErrorReportingGroup
from actors.cli.operator import (
    OperatorClient,
    changing,
    confirm,
    listing,
    print_json,
    run_operator,
    show_answer,
    show_rows,
)
from actors.cli.reach import reaching
from orchestration.errors import InvalidRequest


@click.group(cls=ErrorReportingGroup)
def nodes() -> None:
    """List, show, drain, label and remove nodes."""


@nodes.command(name="list")
@listing("the nodes")
def list_nodes(as_json: bool, **options: Any) -> None:
    """List the live nodes with their models, load and labels."""

    async def work(client: OperatorClient) -> None:
        heads = ("node", "state", "backend", "running", "in memory", "offered", "labels")
        show_rows(await client.every("nodes.list"), heads, _cells, as_json=as_json)

    run_operator(options, work)


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["id"],
        row["state"],
        row["backend"],
        f"{row['running']}/{row['slots']}",
        " ".join(row["loaded"]),
        " ".join(sorted(set(row["models"]) - set(row["loaded"]))),
        _text(row["labels"]),
    )


def _text(labels: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(labels.items()))


@nodes.command()
@click.argument("node_id", metavar="ID")
@reaching
def show(node_id: str, **options: Any) -> None:
    """Print everything about the node ID as JSON."""

    async def work(client: OperatorClient) -> None:
        print_json(await client.call("nodes.inspect", id=node_id))

    run_operator(options, work)


@nodes.command()
@click.argument("node_id", metavar="ID")
@click.option("--force", is_flag=True, help="Also drain the last node of a model, whose requests then wait.")
@changing
def drain(node_id: str, force: bool, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Let the node ID take no new work, finish its own or move it to other nodes, and leave."""

    async def work(client: OperatorClient) -> None:
        await confirm(f"Drain node {node_id}", yes=yes)
        answer = await client.call("nodes.drain", id=node_id, force=force, reason=reason)
        line = f"node {node_id} leaves: {answer['unfinished']} generations to finish"
        show_answer(answer, line, as_json=as_json)

    run_operator(options, work)


@nodes.command()
@click.argument("node_id", metavar="ID")
@click.argument("labels", metavar="NAME=VALUE|NAME-", nargs=-1, required=True)
@changing
def label(
    node_id: str, labels: tuple[str, ...], reason: str, yes: bool, as_json: bool, **options: Any
) -> None:
    """Set labels of the node ID (NAME=VALUE), or remove them (NAME-), until the node ends."""
    wanted, removed = _parsed(labels)

    async def work(client: OperatorClient) -> None:
        await confirm(f"Change labels of node {node_id}", yes=yes)
        answer = await client.call("nodes.label", id=node_id, labels=wanted, remove=removed, reason=reason)
        show_answer(answer, f"{node_id}: {_text(answer['labels']) or 'no labels'}", as_json=as_json)

    run_operator(options, work)


def _parsed(labels: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """The labels to set, and those to remove. Raises `InvalidRequest`."""
    pairs: list[tuple[str, str | None]] = []
    for text in labels:
        name, equals, value = text.partition("=")
        if equals and name:
            pairs.append((name, value))
        elif text.endswith("-") and len(text) > 1:
            pairs.append((text[:-1], None))
        else:
            raise InvalidRequest(f"{text[:80]!r}: write NAME=VALUE to set a label, NAME- to remove it")
    values = by_name(pairs)
    removed = [name for name, value in values.items() if value is None]
    return {name: value for name, value in values.items() if value is not None}, removed


@nodes.command()
@click.argument("node_id", metavar="ID")
@changing
def remove(node_id: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Forget the node ID, which has died, before its lease expires. A node that lives is drained instead."""

    async def work(client: OperatorClient) -> None:
        await confirm(f"Forget node {node_id}", yes=yes)
        answer = await client.call("nodes.remove", id=node_id, reason=reason)
        show_answer(answer, f"node {node_id} is forgotten", as_json=as_json)

    run_operator(options, work)
