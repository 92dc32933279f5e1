"""`orchestra models pin`, `unpin`, and `pull --node`."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from actors.cli.filters import filter_option
from actors.cli.operator import OperatorClient, changing, confirm, print_json, run_operator, show_answer
from actors.cli.progress import StageBars
from actors.models.download import PullProgress
from orchestration.errors import BackendFailed, NodeLost

POLL_S = 0.5
LOAD_S = 600.0


@click.command()
@click.argument("name")
@filter_option("--node", "node_id", metavar="ID", help="Node. [default: all that offer the model]")
@changing
def pin(name: str, node_id: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Load the model NAME and keep it in memory, whatever else is asked for, as long as its node lives."""
    _pin(options, name, node_id, reason, yes=yes, as_json=as_json, pinned=True)


@click.command()
@click.argument("name")
@filter_option("--node", "node_id", metavar="ID", help="Node. [default: all that offer the model]")
@changing
def unpin(name: str, node_id: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Let the pinned model NAME be evicted again."""
    _pin(options, name, node_id, reason, yes=yes, as_json=as_json, pinned=False)


def _pin(
    options: dict[str, Any], name: str, node: str, reason: str, *, yes: bool, as_json: bool, pinned: bool
) -> None:
    word = "Pin" if pinned else "Unpin"

    async def work(client: OperatorClient) -> None:
        await confirm(f"{word} model {name}", yes=yes)
        answer = await client.call_within(
            LOAD_S, "models.pin", model=name, node=node, pinned=pinned, reason=reason
        )
        if as_json:
            print_json(answer)
            return
        for row in answer["results"]:
            problem = row.get("error")
            state = problem["message"] if problem else f"{'is' if pinned else 'is not'} pinned"
            click.echo(f"{name} on node {row['node']}: {state}")

    run_operator(options, work)


async def pull_to_node(client: OperatorClient, model: str, node: str, reason: str, *, as_json: bool) -> None:
    """Have a node pull a model, and show its progress. Raises its error."""
    pull = await client.call("models.pull", model=model, node=node, reason=reason)
    with StageBars() as bars:
        while pull["state"] == "running":
            bars(PullProgress(stage=pull["stage"], done=pull["done"], total=pull["total"]))
            await asyncio.sleep(POLL_S)
            pulls = await client.call("models.pulls", node=node)
            found = [each for each in pulls["data"] if each["id"] == pull["id"]]
            if not found and not pulls["missing"]:
                raise NodeLost(f"node {node} has forgotten the pull: it was restarted")
            pull = found[0] if found else pull
    if pull["state"] == "failed":
        raise BackendFailed(f"node {node} could not pull {model}: {pull['error']['message']}")
    show_answer(pull, f"node {node} offers {model}", as_json=as_json)
