"""Output of all commands."""

from __future__ import annotations

from rich.console import Console

PIPE_WIDTH = 250


def widen(console: Console) -> Console:
    """The same console, wide enough to cut no cell off where the output is a pipe."""
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    return console
