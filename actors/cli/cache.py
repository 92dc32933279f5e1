"""`orchestra cache`: show or clear the cached responses."""

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
    print_json,
    print_table,
    run_operator,
    show_answer,
    warn_missing,
)


@click.group(cls=ErrorReportingGroup)
def cache() -> None:
    """Show or clear the cached responses of all gateways."""


@cache.command()
@listing("the figures")
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
@filter_option("--model", help="Only responses of this model.")
@filter_option("--namespace", metavar="CALLER", help="Only those of this caller or namespace.")
@changing
def clear(model: str, namespace: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Use no cached response from before now, at all gateways."""

    async def work(client: OperatorClient) -> None:
        named = [f"{name} {value}" for name, value in (("model", model), ("caller", namespace)) if value]
        which = " and ".join(named) or "all models and callers"
        await confirm(f"Clear the cached responses of {which}", yes=yes)
        answer = await client.call("cache.clear", model=model, namespace=namespace, reason=reason)
        show_answer(answer, f"cleared: cached responses of {which}", as_json=as_json)

    run_operator(options, work)
