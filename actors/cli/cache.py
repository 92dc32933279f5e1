"""`orchestra cache`: show or clear the cached responses."""

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


@click.group(cls=ErrorReportingGroup)
def cache() -> None:
    """Show or clear the cached responses of all gateways."""


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reaching
def show(as_json: bool, **options: Any) -> None:
    """Show what the gateways and the shared bucket hold, and how often it was used."""

    async def work(client: OperatorClient) -> None:
        answer = await client.call("cache.show")
        warn_missing(answer)
        if as_json:
            print_json(answer)
            return
        rows = [
            (
                each["process"],
                each["entries"],
                f"{each['bytes'] / 1e6:.1f}",
                *(each["requests"].get(result, 0) for result in ("hit", "shared", "miss")),
            )
            for each in answer["gateways"]
        ]
        shared = answer["shared"]
        rows.append(("shared bucket", shared["entries"], f"{shared['bytes'] / 1e6:.1f}", "", "", ""))
        print_table(("where", "entries", "MB", "hits", "shared", "misses"), rows)

    run_operator(options, work)


@cache.command()
@click.option("--model", default="", help="Only responses of this model.")
@click.option("--namespace", default="", metavar="CALLER", help="Only those of this caller or namespace.")
@changing
def clear(model: str, namespace: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Use no cached response from before now, at all gateways."""

    async def work(client: OperatorClient) -> None:
        which = " and ".join(
            f"{name} {value}" for name, value in (("model", model), ("caller", namespace)) if value
        )
        confirm(f"Clear the cached responses of {which or 'all models and callers'}", yes=yes)
        answer = await client.call("cache.clear", model=model, namespace=namespace, reason=reason)
        if as_json:
            print_json(answer)
        else:
            click.echo(f"cleared: cached responses of {which or 'all models and callers'}")

    run_operator(options, work)
