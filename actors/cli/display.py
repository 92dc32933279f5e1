"""Shows an answer of `orchestra ask` and `orchestra chat`: text on stdout, progress and notes on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import click


class PlainDisplay:
    """Shows lines of progress, then the answer while it arrives. Use it in an `async with` block, as its
    subclasses.

    Progress that comes while the answer is written is shown after it, so that no line mixes both.
    """

    def __init__(self, *, closing_lines: bool = True) -> None:
        """`closing_lines`: whether progress made during the answer is shown after it."""
        self._closing_lines = closing_lines
        self._held: list[str] = []
        self._answering = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the answer's last line."""
        if self._answering or kind is None:
            click.echo()

    def follow(self, run_id: str) -> None:
        """Set the run's id, once it is known. A second call does nothing."""

    def progress(self, text: str) -> None:
        """Show a line of progress."""
        if self._answering:
            self._held.append(text)
        else:
            _line(text)

    async def answer(self, text: str) -> None:
        """Write the answer's next text."""
        self._answering = True
        click.echo(text, nl=False)

    def ended(self, notes: list[str]) -> None:
        """Show the notes of the complete answer. Call it after the block."""
        for line in self._held if self._closing_lines else ():
            if line not in notes:
                _line(line)
        for note in notes:
            click.secho(f"note: {note}", fg="yellow", err=True)


def _line(text: str) -> None:
    click.secho(f"· {text}", dim=True, err=True)
