"""Markdown on a terminal while it grows."""

from __future__ import annotations

import io

from rich.console import Console

from actors.cli.markdown import MarkdownWriter
from tests.fixtures.eventually import eventually


async def test_a_growing_block_ends_above_an_empty_line_so_that_a_key_shown_there_moves_no_drawn_line() -> (
    None
):
    shown = io.StringIO()
    writer = MarkdownWriter(Console(file=shown, force_terminal=True, width=20, height=10))
    writer.write("a line that is drawn at full width")
    try:
        await eventually(lambda: "full width" in shown.getvalue())
        drawn = shown.getvalue()
    finally:
        writer.close()
    assert drawn.endswith("\n")
