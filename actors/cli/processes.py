"""`orchestra processes`: the processes of the cluster."""

from __future__ import annotations

from typing import Any

import click

from actors.cli.operator import OperatorClient, age, print_json, print_table, reaching, run_operator


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the processes as JSON.")
@reaching
def processes(as_json: bool, **options: Any) -> None:
    """List the processes with role, host, version and uptime, also those that do not answer."""

    async def work(client: OperatorClient) -> None:
        rows = await client.every("processes.list")
        if as_json:
            print_json(rows)
            return
        print_table(
            ("process", "state", "roles", "host", "pid", "version", "up for", "nodes"),
            (
                (
                    row["id"],
                    row["state"],
                    " ".join(row["roles"]),
                    row["host"],
                    row["pid"],
                    row["version"],
                    age(row["uptime_s"]),
                    " ".join(row["nodes"]),
                )
                for row in rows
            ),
        )

    run_operator(options, work)
