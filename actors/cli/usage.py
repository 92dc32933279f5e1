"""`orchestra usage`: requests and tokens by caller and model."""

from __future__ import annotations

import time
from typing import Any

import click

from actors.cli.filters import filter_option
from actors.cli.operator import OperatorClient, age, listing, print_json, print_table, run_operator

COLUMNS = ("requests", "failed", "from_cache", "input_tokens", "cached_tokens", "output_tokens")


@click.command()
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(min=1),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="Only requests that have ended within this time.",
)
@filter_option("--caller", help="Only this caller.")
@filter_option("--model", help="Only this model.")
@listing("the figures")
def usage(within_s: float, caller: str, model: str, as_json: bool, **options: Any) -> None:
    """Show requests and tokens by caller and model, from the central log."""

    async def work(client: OperatorClient) -> None:
        answer = await client.call("usage.show", within_s=within_s, caller=caller, model=model)
        if as_json:
            print_json(answer)
            return
        print_table(
            ("caller", "model", *(name.replace("_", " ") for name in COLUMNS)),
            ((row["caller"], row["model"], *(row[name] for name in COLUMNS)) for row in answer["data"]),
        )
        if not answer["complete"]:
            since = age(time.time() - answer["since"])
            click.echo(f"orchestra: only the last {since} are counted: more requests have ended", err=True)

    run_operator(options, work)
