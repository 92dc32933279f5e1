"""`orchestra config`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from actors.cli.main import common, said
from actors.cli.show import wide
from actors.settings import DEFAULT, leaves, load


@click.command()
@common
@click.option("--json", "as_json", is_flag=True, help="One JSON object: name to value and source.")
def config(config_file: Path | None, data: Path | None, as_json: bool) -> None:
    """Show every setting in force and where its value comes from. Secrets are masked."""
    settings, origins = load(said(data=data), config_file)
    rows = {name: (value, origins.get(name, DEFAULT)) for name, value in leaves(settings).items()}
    if as_json:
        body = {name: {"value": value, "source": source} for name, (value, source) in rows.items()}
        click.echo(json.dumps(body, indent=2, default=str))
        return
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for name, (value, source) in rows.items():
        table.add_row(name, str(value), source, style="" if source == DEFAULT else "bold")
    wide(Console()).print(table)
