"""`orchestra reference`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

PAGES = (
    *("settings.md", "metrics.md", "errors.md", "run-events.md", "nats.md"),
    *("http.md", "openapi.json", "admin.md", "admin-openapi.json"),
)


def pages(names: Sequence[str] = PAGES) -> dict[str, str]:
    """The text of reference pages, by the names of their files."""
    from actors.admin.operations import ADMIN_OPERATIONS, ADMIN_TITLE
    from actors.cli.reference import errors, http, metrics, nats, run_events, settings
    from actors.gateway.openapi import openapi
    from actors.gateway.operations import OPERATIONS

    makers: dict[str, Callable[[], str]] = {
        "settings.md": settings.page,
        "metrics.md": metrics.page,
        "errors.md": errors.page,
        "run-events.md": run_events.page,
        "nats.md": nats.page,
        "http.md": http.page,
        "openapi.json": lambda: openapi(OPERATIONS),
        "admin.md": http.admin_page,
        "admin-openapi.json": lambda: openapi(ADMIN_OPERATIONS, ADMIN_TITLE),
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
