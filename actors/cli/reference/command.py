"""`orchestra reference`."""

from __future__ import annotations

from pathlib import Path

import click

PAGES = ("settings", "metrics", "errors", "run-events", "nats")


def pages() -> dict[str, str]:
    """Every reference page as Markdown, by name."""
    from actors.cli.reference import errors, metrics, nats, run_events, settings

    makers = {
        "settings": settings.page,
        "metrics": metrics.page,
        "errors": errors.page,
        "run-events": run_events.page,
        "nats": nats.page,
    }
    return {name: makers[name]() for name in PAGES}


@click.command()
@click.argument("page", type=click.Choice(PAGES), required=False)
@click.option(
    "--write", "folder", type=click.Path(path_type=Path), help="Write every page to FOLDER/PAGE.md."
)
def reference(page: str | None, folder: Path | None) -> None:
    """Print the reference of this version as Markdown: settings, metrics, errors, run events, NATS."""
    made = pages()
    if folder is None:
        click.echo(made[page] if page else "\n".join(made.values()))
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
