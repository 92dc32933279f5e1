"""`orchestra queues`: list, pause, resume and purge queues."""

from __future__ import annotations

from typing import Any

import click

from actors.cli.main import ErrorReportingGroup
from actors.cli.operator import (
    OperatorClient,
    age,
    changing,
    confirm,
    listing,
    order_text,
    run_operator,
    show_answer,
    show_rows,
)

PURGE_S = 60.0


@click.group(cls=ErrorReportingGroup)
def queues() -> None:
    """List, pause, resume and purge queues: `runs`, and `generations/MODEL` of each model."""


@queues.command(name="list")
@listing("the queues")
def list_queues(as_json: bool, **options: Any) -> None:
    """List the queues with their depth, their age, and who has paused them."""

    async def work(client: OperatorClient) -> None:
        heads = ("queue", "waiting", "running", "oldest", "paused")
        show_rows(await client.every("queues.list"), heads, _cells, as_json=as_json)

    run_operator(options, work)


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    oldest, paused = age(row["oldest_age_s"]), order_text(row["paused"])
    return row["name"], row["waiting"], row["running"], oldest, paused


@queues.command()
@click.argument("queue")
@changing
def pause(queue: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Let nothing of QUEUE begin. What is accepted waits, and what runs goes on."""

    async def work(client: OperatorClient) -> None:
        await confirm(f"Pause queue {queue}", yes=yes)
        answer = await client.call("queues.pause", queue=queue, reason=reason)
        show_answer(answer, f"queue {queue} is paused; {answer['waiting']} wait", as_json=as_json)

    run_operator(options, work)


@queues.command()
@click.argument("queue")
@changing
def resume(queue: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Take the pause of QUEUE back."""

    async def work(client: OperatorClient) -> None:
        await confirm(f"Resume queue {queue}", yes=yes)
        answer = await client.call("queues.resume", queue=queue, reason=reason)
        show_answer(answer, f"queue {queue} goes on; {answer['waiting']} wait", as_json=as_json)

    run_operator(options, work)


@queues.command()
@click.argument("queue")
@changing
def purge(queue: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """End everything that waits in QUEUE now. Its callers get an error with the reason; what comes later
    stays."""

    async def work(client: OperatorClient) -> None:
        counted = await client.call("queues.purge", queue=queue)
        if counted["waiting"]:
            await confirm(f"End the {counted['waiting']} that wait in queue {queue}", yes=yes)
        answer = await client.call_within(
            PURGE_S, "queues.purge", queue=queue, confirm=counted["confirm"], reason=reason
        )
        line = f"{answer['purged']} of queue {queue} have ended; {answer['waiting']} wait"
        show_answer(answer, line, as_json=as_json)

    run_operator(options, work)
