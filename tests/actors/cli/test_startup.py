"""Commands that start quickly because they import little."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click

from actors.cli.main import COMMANDS
from actors.config.client import SECTIONS
from actors.settings import Settings

HEAVY = ("aiohttp", "numpy", "onnxruntime", "opentelemetry.sdk", "orchestration.patterns", "rich")


def modules_after(statement: str) -> set[str]:
    """The modules loaded once an interpreter of its own has run `statement`."""
    code = f"import sys\ntry: {statement}\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_the_help_loads_nothing_but_the_list_of_commands() -> None:
    loaded = modules_after("from actors.cli import main; sys.argv = ['orchestra', '--help']; main()")
    assert "actors.cli.main" in loaded
    assert not loaded & {*HEAVY, "asyncio", "pydantic", "nats", "actors.cli.up"}


def test_ask_loads_no_more_than_a_client_needs() -> None:
    loaded = modules_after("import actors.cli.ask")
    assert "actors.bus.bus" in loaded
    assert not loaded & {*HEAVY, "actors.settings", "orchestration.messages"}


def test_each_command_that_is_listed_is_there() -> None:
    for name, place in COMMANDS.items():
        command = getattr(importlib.import_module(place.module), place.name)
        assert isinstance(command, click.Command)
        assert command.help, name


def test_a_client_knows_every_section_of_the_settings() -> None:
    assert sorted(Settings.model_fields) == list(SECTIONS)
