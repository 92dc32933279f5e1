"""Progress bars on stderr."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from actors.embedding.embedder import Embedder
from actors.installation.optional_imports import install_command, is_installed
from actors.models.catalogue import catalogue
from actors.models.download import PullProgress
from actors.models.errors import CorruptModel
from actors.models.pull import ensure, ready
from actors.models.source import is_source
from actors.settings import Settings

log = logging.getLogger(__name__)


def pull_model(source: str, models_folder: Path) -> Path:
    """The folder of the model. A model that is not installed is downloaded and imported first. An installed
    one that is damaged is returned as it is."""
    entry = catalogue().get(source)
    if entry is not None and ready(source, models_folder) is None:
        size = f"{entry.download_bytes / 1e6:.0f} MB"
        click.echo(f"downloading {source} once: {size}, {entry.license}, into {models_folder}", err=True)
    with StageBars() as bars:
        try:
            return ensure(source, models_folder, bars)
        except CorruptModel:
            if is_source(source) or not (models_folder / source).is_dir():
                raise
            return models_folder / source  # the node reports what is wrong, and serves the other models


def agents_embedder(settings: Settings) -> Embedder | None:
    """The agents' own embedding model, downloaded when it is first used; None if `agents.embedder` is
    empty."""
    name, models_folder = settings.agents.embedder, settings.models_folder
    if not name:
        return None
    if not is_installed("onnxruntime"):
        log.warning(
            "the agents have no embedding model of their own: it needs onnxruntime (%s); "
            'agents.embedder = "" switches it off',
            install_command("onnx"),
        )
        return None
    if name not in catalogue() and ready(name, models_folder) is None:
        log.warning(
            "the agents have no embedding model of their own: agents.embedder %r is not installed, "
            "and these can be pulled: %s",
            name,
            ", ".join(known for known, entry in catalogue().items() if entry.kind == "embedding"),
        )
        return None
    return Embedder(models_folder / name, lambda: ensure(name, models_folder))


class BytesColumn(DownloadColumn):
    """How many bytes of how many, for the stages that count bytes."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["unit"] == "bytes" else Text()


class StageBars:
    """A bar for each stage of a pull, in bytes if they are known, otherwise as a share."""

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


class CountBar:
    """A bar for a count, with the remaining time."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._bar = Progress(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(what, total=total, completed=done)

    def __enter__(self) -> CountBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self) -> None:
        """Count one more."""
        self._bar.advance(self._task)
