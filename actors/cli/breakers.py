"""`orchestra breakers`: list circuit breakers, hold them open, or reset them."""

from __future__ import annotations

from typing import Any

import click

from actors.cli.main import ErrorReportingGroup
from actors.cli.operator import (
    OperatorClient,
    changing,
    confirm,
    print_json,
    print_table,
    reaching,
    run_operator,
    warn_missing,
)
from orchestration.errors import InvalidRequest


@click.group(cls=ErrorReportingGroup)
def breakers() -> None:
    """List circuit breakers, hold them open, or reset them, in all processes."""


@breakers.command(name="list")
@click.option("--all", "closed", is_flag=True, help="Also list those that are closed everywhere.")
@click.option("--json", "as_json", is_flag=True, help="Print the breakers as JSON.")
@reaching
def list_breakers(closed: bool, as_json: bool, **options: Any) -> None:
    """List the breakers that are not closed, with their state in each process."""

    async def work(client: OperatorClient) -> None:
        rows = await client.every("breakers.list", closed=closed)
        if as_json:
            print_json(rows)
            return
        print_table(
            ("model", "node", "held open", "state", "process"),
            (
                (
                    row["model"],
                    row["node"],
                    f"by {row['held_open']['by']}: {row['held_open']['reason']}" if row["held_open"] else "",
                    state["state"],
                    f"{state['process']} {state['part']}",
                )
                for row in rows
                for state in row["states"]
            ),
        )

    run_operator(options, work)


@breakers.command()
@click.argument("model")
@click.argument("node_id", metavar="NODE")
@changing
def hold(model: str, node_id: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Hold the breaker of MODEL on NODE open until it is reset: the node gets no generations of the model."""

    async def work(client: OperatorClient) -> None:
        confirm(f"Send no generations of {model} to node {node_id}", yes=yes)
        answer = await client.call("breakers.hold", model=model, node=node_id, reason=reason)
        if as_json:
            print_json(answer)
        else:
            click.echo(f"the breaker of {answer['name']} is held open")

    run_operator(options, work)


@breakers.command()
@click.option("--model", default="", help="Model; without it all models of the node.")
@click.option("--node", "node_id", default="", metavar="ID", help="Node; without it all nodes of the model.")
@changing
def reset(model: str, node_id: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Close breakers in all processes, also those that are held open."""
    if not model and not node_id:
        raise InvalidRequest("name a model with --model, a node with --node, or both")

    async def work(client: OperatorClient) -> None:
        confirm(f"Close the breakers of {' on '.join(filter(None, (model, node_id)))}", yes=yes)
        answer = await client.call("breakers.reset", model=model, node=node_id, reason=reason)
        warn_missing(answer)
        if as_json:
            print_json(answer)
            return
        closed = {name for names in answer["closed"].values() for name in names} | set(answer["released"])
        click.echo(f"closed: {', '.join(sorted(closed)) or 'none was open'}")

    run_operator(options, work)
