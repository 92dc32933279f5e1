"""`orchestra breakers`: list circuit breakers, hold them open, or reset them."""

from __future__ import annotations

from typing import Any

import click

from actors.cli.filters import filter_option
from actors.cli.main import ErrorReportingGroup
from actors.cli.operator import (
    OperatorClient,
    changing,
    confirm,
    listing,
    order_text,
    print_json,
    print_table,
    run_operator,
    show_answer,
    warn_missing,
)
from orchestration.errors import InvalidRequest


@click.group(cls=ErrorReportingGroup)
def breakers() -> None:
    """List circuit breakers, hold them open, or reset them, in all processes."""


@breakers.command(name="list")
@click.option("--all", "closed", is_flag=True, help="Also list those that are closed everywhere.")
@listing("the breakers")
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
                    order_text(row["held_open"]),
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
        await confirm(f"Send no generations of {model} to node {node_id}", yes=yes)
        answer = await client.call("breakers.hold", model=model, node=node_id, reason=reason)
        show_answer(answer, f"the breaker of {answer['name']} is held open", as_json=as_json)

    run_operator(options, work)


@breakers.command()
@filter_option("--model", help="Model; without it all models of the node.")
@filter_option("--node", "node_id", metavar="ID", help="Node; without it all nodes of the model.")
@changing
def reset(model: str, node_id: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Close breakers in all processes, also those that are held open."""
    if not model and not node_id:
        raise InvalidRequest("name a model with --model, a node with --node, or both")

    async def work(client: OperatorClient) -> None:
        await confirm(f"Close the breakers of {' on '.join(filter(None, (model, node_id)))}", yes=yes)
        answer = await client.call("breakers.reset", model=model, node=node_id, reason=reason)
        warn_missing(answer)
        closed = {name for names in answer["closed"].values() for name in names} | set(answer["released"])
        show_answer(answer, f"closed: {', '.join(sorted(closed)) or 'none was open'}", as_json=as_json)

    run_operator(options, work)
