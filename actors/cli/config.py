"""`orchestra config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from actors.cli.main import common, overrides_of
from actors.cli.show import widen
from actors.settings import DEFAULT, leaves, load


@click.command()
@common
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: value and source by name.")
def config(config_file: Path | None, data: Path | None, as_json: bool) -> None:
    """Show all settings with their values and sources. Secrets are masked."""
    settings, origins = load(overrides_of(data=data), config_file)
    values = _backend_defaults() | leaves(settings)
    rows = {name: (values[name], origins.get(name, DEFAULT)) for name in sorted(values) if values[name] != {}}
    if as_json:
        body = {name: {"value": value, "source": source} for name, (value, source) in rows.items()}
        click.echo(json.dumps(body, indent=2, default=str))
        return
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for name, (value, source) in rows.items():
        table.add_row(name, str(value), source, style="" if source == DEFAULT else "bold")
    widen(Console()).print(table)


def _backend_defaults() -> dict[str, Any]:
    """The defaults of the backends, whose settings are read by their nodes."""
    from actors.backends.echo import EchoSettings
    from actors.backends.openai import OpenAISettings
    from actors.engine.settings import OnnxSettings, OpenVinoSettings

    return {
        **{f"echo.{name}": field.default for name, field in EchoSettings.model_fields.items()},
        **{f"onnx.{name}": field.default for name, field in OnnxSettings.model_fields.items()},
        **{f"openvino.{name}": field.default for name, field in OpenVinoSettings.model_fields.items()},
        **{
            f"openai.{name}": "(needed)" if field.is_required() else field.default
            for name, field in OpenAISettings.model_fields.items()
        },
    }
