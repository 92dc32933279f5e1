"""`orchestra reference`."""

from __future__ import annotations

from pathlib import Path

import click

PAGES = ("settings.md", "metrics.md", "errors.md", "run-events.md", "nats.md", "http.md", "openapi.json")


def pages() -> dict[str, str]:
    """Every reference page, by the name of its file."""
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
    return {name: makers[name]() for name in PAGES}


@click.command()
@click.argument("page", type=click.Choice(PAGES), required=False)
@click.option("--write", "folder", type=click.Path(path_type=Path), help="Folder to write all pages to.")
def reference(page: str | None, folder: Path | None) -> None:
    """Print the reference of this version, or one PAGE of it."""
    made = pages()
    if folder is None:
        click.echo(made[page] if page else "\n".join(made.values()))
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
