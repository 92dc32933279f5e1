"""`orchestra keys`: the API keys of callers, with their limits and scopes."""

from __future__ import annotations

from typing import Any

import click

from actors.cli.config import print_change
from actors.cli.main import ErrorReportingGroup
from actors.cli.operator import (
    OperatorClient,
    changing,
    confirm,
    listing,
    print_json,
    run_operator,
    show_rows,
)

LIMITS = ("requests_in_flight", "queue_depth", "tokens_per_minute", "unfinished_jobs")


@click.group(cls=ErrorReportingGroup)
def keys() -> None:
    """List, add, rotate and remove API keys. All gateways follow within a second.

    Limits are changed with `orchestra config set gateway.callers.NAME.LIMIT=…`.
    """


@keys.command(name="list")
@listing("the callers")
def list_keys(as_json: bool, **options: Any) -> None:
    """List the callers with the begin of their keys' hashes, their scopes and limits."""

    async def work(client: OperatorClient) -> None:
        callers = (await client.call("keys.list"))["data"]
        if not callers and not as_json:
            click.echo("no callers: HTTP needs no key. Add one with `orchestra keys add NAME`")
            return
        show_rows(callers, ("caller", "key", "scopes", "namespace", *LIMITS), _cells, as_json=as_json)

    run_operator(options, work)


def _cells(caller: dict[str, Any]) -> tuple[Any, ...]:
    scopes = " ".join(caller["scopes"])
    return caller["name"], caller["key"], scopes, caller["namespace"], *(caller[name] for name in LIMITS)


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(("inference", "admin")),
    help="What the key may call; repeatable. [default: inference]",
)
@click.option("--namespace", metavar="NAME", help="Share cached responses and jobs with its other callers.")
@click.option("--requests-in-flight", type=click.IntRange(min=1), help="Maximum requests in flight.")
@click.option("--queue-depth", type=click.IntRange(min=1), help="Maximum requests without a first event.")
@click.option("--tokens-per-minute", type=click.IntRange(min=1), help="Maximum tokens per minute.")
@click.option("--unfinished-jobs", type=click.IntRange(min=1), help="Maximum unfinished jobs.")
@changing
def add(
    name: str, scopes: tuple[str, ...], namespace: str | None, yes: bool, as_json: bool, **options: Any
) -> None:
    """Add the caller NAME and print its key, once: only a hash of it is kept."""
    fields = {limit: options[limit] for limit in LIMITS if options[limit] is not None}

    async def work(client: OperatorClient) -> None:
        if not (await client.call("keys.list"))["data"]:
            await confirm("It is the first key, and then every HTTP request needs one. Add it", yes=yes)
        answer = await client.call(
            "keys.add", name=name, scopes=scopes, namespace=namespace, reason=options["reason"], **fields
        )
        _print_key(answer, as_json=as_json)

    run_operator(options, work)


@keys.command()
@click.argument("name")
@changing
def rotate(name: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Give the caller NAME another key and print it, once. The old one ends at once."""

    async def work(client: OperatorClient) -> None:
        await confirm(f"The present key of {name} ends at once. Rotate it", yes=yes)
        _print_key(await client.call("keys.rotate", name=name, reason=reason), as_json=as_json)

    run_operator(options, work)


@keys.command()
@click.argument("name")
@click.option("--open", "opens", is_flag=True, help="Remove even the last one: then HTTP needs no key.")
@changing
def remove(name: str, opens: bool, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Remove the caller NAME. Its key ends at once; requests in flight go on."""

    async def work(client: OperatorClient) -> None:
        await confirm(f"The key of {name} ends at once. Remove it", yes=yes)
        answer = await client.call("keys.remove", name=name, open=opens, reason=reason)
        print_change(answer, as_json=as_json)

    run_operator(options, work)


def _print_key(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    click.echo(f"{answer['follow']}", err=True)
    if answer.get("note"):
        click.echo(answer["note"], err=True)
    click.echo("this key is shown only now:", err=True)
    click.echo(answer["key"])
