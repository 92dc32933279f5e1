"""`orchestra processes`: the processes of the cluster."""

from __future__ import annotations

from typing import Any

import click

from actors.cli.operator import OperatorClient, age, listing, run_operator, show_rows


@click.command()
@listing("the processes")
def processes(as_json: bool, **options: Any) -> None:
    """List the processes with role, host, version and uptime, also those that do not answer."""

    async def work(client: OperatorClient) -> None:
        heads = ("process", "state", "roles", "host", "pid", "version", "up for", "nodes")
        show_rows(await client.every("processes.list"), heads, _cells, as_json=as_json)

    run_operator(options, work)


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["id"],
        row["state"],
        " ".join(row["roles"]),
        row["host"],
        row["pid"],
        row["version"],
        age(row["uptime_s"]),
        " ".join(row["nodes"]),
    )
