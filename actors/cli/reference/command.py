"""`orchestra reference`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

PAGES = ("settings.md", "metrics.md", "errors.md", "run-events.md", "nats.md", "http.md", "openapi.json")


def pages(names: Sequence[str] = PAGES) -> dict[str, str]:
    """The text of reference pages, by the names of their files."""
    from actors.cli.reference import errors, http, metrics, nats, run_events, settings

    makers = {
        "settings.md": settings.page,
        "metrics.md": metrics.page,
        "errors.md": errors.page,
        "run-events.md": run_events.page,
        "nats.md": nats.page,
        "http.md": http.page,
        "openapi.json": http.openapi,
    }
    return {name: makers[name]() for name in names}


@click.command()
@click.argument("page", type=click.Choice(PAGES), required=False)
@click.option("--write", "folder", type=click.Path(path_type=Path), help="Folder to write all pages to.")
def reference(page: str | None, folder: Path | None) -> None:
    """Print the reference of this version, or one PAGE of it."""
    made = pages([page] if page and folder is None else PAGES)
    if folder is None:
        click.echo("\n".join(made.values()))
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
