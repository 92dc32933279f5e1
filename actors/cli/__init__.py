"""The command line. Each command is imported when it is called, so that `--help` is quick."""

from actors.cli.main import main

__all__ = ["main"]
