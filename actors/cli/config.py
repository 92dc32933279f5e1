"""`orchestra config`: shows settings and their sources, and changes them while processes run."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.cli.filters import by_name
from actors.cli.main import ErrorReportingGroup, common, nats_option, overrides_of
from actors.cli.operator import (
    OperatorClient,
    changing,
    confirm,
    listing,
    print_json,
    print_table,
    run_operator,
)
from actors.cli.reach import nats_url_of
from actors.cli.show import widen
from actors.config.client import SECTIONS
from actors.config.cluster_settings import ClusterSettings, Stored
from actors.config.settings_rows import DEFAULT, SettingRow, rows_of
from orchestration.errors import InvalidRequest, OrchestraError

MAX_SHOWN = 100
"""Characters of a value in a table; `--json` has all."""
REACH_S = 2.0
"""Maximum time to reach a cluster only to show its settings."""


force_option = click.option(
    "--force", is_flag=True, help="Change it although it does harm as things are, or was changed later."
)


class ConfigGroup(ErrorReportingGroup):
    """A group in which `config`, `config PREFIX` and `config --json` mean `config show`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else "--"
        if first not in ("-h", "--help") and (first[0] == "-" or "." in first or first in SECTIONS):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ConfigGroup)
def config() -> None:
    """Show settings and their sources, or change those that are hot while processes run.

    `orchestra config [PREFIX]` shows them. Weak to strong: default, file, cluster, environment, command line.
    """


@config.command()
@click.argument("prefix", default="")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: value and source by name.")
@common
@nats_option
def show(
    prefix: str, as_json: bool, config_file: Path | None, data: Path | None, nats_url: str | None
) -> None:
    """Show the settings at and below PREFIX, as a process has them that starts here. Secrets are masked."""
    from actors.config.hot_settings import HotSettings
    from actors.settings import load

    settings, origins = load(overrides_of(data=data, nats__url=nats_url), config_file)
    hot = HotSettings(settings, origins)
    document = _cluster_settings(settings, needed=nats_url is not None)
    rows = [*rows_of(hot, document, prefix), *_backend_defaults(settings, prefix)]
    rows.sort(key=lambda row: row.name)
    if as_json:
        facts = {row.name: {"value": row.value, "source": row.origin, "hot": row.hot} for row in rows}
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    table = Table("setting", "value", "from", "", box=None, pad_edge=False)
    for row in rows:
        style = "" if row.origin == DEFAULT else "bold"
        cells = (row.name, _text(row.value), _origin(row), "hot" if row.hot else "")
        table.add_row(*map(Text, cells), style=style)
    widen(Console()).print(table)


@config.command(name="set")
@click.argument("assignments", metavar="NAME=VALUE...", nargs=-1, required=True)
@force_option
@changing
def set_settings(assignments: tuple[str, ...], **options: Any) -> None:
    """Change settings in all processes of the cluster; all of them or none.

    A VALUE may be JSON, such as '["small"]'; null removes an entry of a table.
    """
    values = by_name(map(_assignment, assignments))
    run_operator(options, lambda client: _change(client, "settings.set", options, values=values))


@config.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@force_option
@changing
def unset(names: tuple[str, ...], **options: Any) -> None:
    """Let files and defaults decide the settings at and below each NAME again."""
    run_operator(options, lambda client: _change(client, "settings.unset", options, names=names))


@config.command()
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="Maximum changes.")
@listing("the changes")
def history(limit: int, as_json: bool, **options: Any) -> None:
    """List the last changes of settings: who, when, what and why."""

    async def work(client: OperatorClient) -> None:
        changes = (await client.call("settings.history", limit=limit))["data"]
        if as_json:
            print_json(changes)
            return
        heads = ("change", "when", "by", "setting", "before", "after", "why")
        print_table(heads, (line for change in changes for line in _lines(change)))

    run_operator(options, work)


def _lines(change: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """A line for each value that a change set; the first has the change."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(change["at"]))
    why = change["reason"] or (f"undoes {change['undoes']}" if change["undoes"] else "")
    for number, value in enumerate(change["values"]):
        first = ("", "", "") if number else (change["id"], when, change["by"])
        yield *first, value["name"], _stored(value["before"]), _stored(value["after"]), "" if number else why


@config.command()
@click.argument("change_id", metavar="ID", type=click.IntRange(min=1))
@force_option
@changing
def undo(change_id: int, **options: Any) -> None:
    """Undo the change ID, as a new change; `orchestra config history` lists them."""

    run_operator(options, lambda client: _change(client, "settings.undo", options, id=change_id))


async def _change(client: OperatorClient, verb: str, options: dict[str, Any], **body: Any) -> None:
    """Show what a change would do, ask, and make it, unless one of its settings was changed meanwhile."""
    body |= {"reason": options["reason"], "force": options["force"]}
    change = (await client.call(verb, dry_run=True, **body)).get("change")
    if change is not None:
        for each in change["values"]:
            click.echo(f"{each['name']}: {_stored(each['before'])} → {_stored(each['after'])}", err=True)
        await confirm("Change it in all processes", yes=options["yes"])
        body["expected_revision"] = change["id"] - 1
    print_change(await client.call(verb, **body), as_json=options["as_json"])


@config.command()
@listing("the processes")
def followers(as_json: bool, **options: Any) -> None:
    """Show which revision of the cluster's settings each process uses, and why one does not."""

    async def work(client: OperatorClient) -> None:
        answer = await client.call("settings.followers")
        if as_json:
            print_json(answer)
            return
        click.echo(f"the settings are at revision {answer['revision']}")
        rows = [[row[name] for name in ("process", "role", "revision", "refused")] for row in answer["data"]]
        print_table(("process", "role", "revision", "refused because"), rows)

    run_operator(options, work)


def print_change(answer: dict[str, Any], *, as_json: bool) -> None:
    """What a change of settings did."""
    if as_json:
        print_json(answer)
        return
    change = answer.get("change")
    if change is None:
        click.echo("nothing to change: it is so already")
        return
    click.echo(f"change {change['id']}: {answer['follow']}")
    for name, origin in answer["pinned"].items():
        click.echo(
            f"{name} is pinned by {origin} in the gateway that answered, and unchanged there", err=True
        )


def _cluster_settings(settings: Any, *, needed: bool) -> ClusterSettings:
    """The cluster's settings; none where no cluster can be reached, unless it is `needed`."""
    from actors.bus.key_value import Bucket
    from actors.config.cluster_settings import BUCKET, KEY
    from actors.launch.process import connected, run

    async def read(url: str) -> ClusterSettings:
        async with asyncio.timeout(None if needed else REACH_S):
            async with connected(settings, url, "orchestra-config") as bus:
                return ClusterSettings.read((await Bucket(bus, BUCKET).latest(KEY, sure=True)).value)

    try:
        return run(read(nats_url_of(settings)))
    except (OrchestraError, TimeoutError) as error:
        if needed:
            raise
        why = (str(error) or "it does not answer").partition(". ")[0]
        click.echo(f"settings of this machine only: {why}", err=True)
        return ClusterSettings()


def _backend_defaults(settings: Any, prefix: str) -> list[SettingRow]:
    """The defaults of the backends that are not set; their nodes read these sections."""
    from actors.backends.echo import EchoSettings
    from actors.backends.openai import OpenAISettings
    from actors.engine.settings import OnnxSettings, OpenVinoSettings

    models: dict[str, type[BaseModel]] = {
        "echo": EchoSettings,
        "onnx": OnnxSettings,
        "openvino": OpenVinoSettings,
        "openai": OpenAISettings,
    }
    rows = [
        SettingRow(name=f"{section}.{name}", value="(needed)" if field.is_required() else field.default)
        for section, model in models.items()
        for name, field in model.model_fields.items()
        if name not in getattr(settings, section)
    ]
    return [
        row for row in rows if f"{row.name}.".startswith(f"{prefix}." if prefix else "") and row.value != {}
    ]


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidRequest(f"{text[:80]!r} is not NAME=VALUE")
    if value == "null" or value.startswith(("[", "{", '"')):
        try:
            return name, json.loads(value)
        except ValueError:
            return name, value
    return name, value


def _stored(stored: dict[str, Any] | None) -> str:
    return "not set" if stored is None else _text(Stored.model_validate(stored).value)


def _origin(row: SettingRow) -> str:
    pinned = row.revision and not row.origin.startswith("cluster")
    return f"{row.origin}; not {_text(row.cluster)} of the cluster" if pinned else row.origin


def _text(value: Any) -> str:
    """A value as a file has it, cut where it is long."""
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
