"""Formats Markdown on a terminal while it arrives."""

from __future__ import annotations

import re

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment

FRAMES_PER_S = 12.0
_BLOCK_END = re.compile(r"\n[ \t]*\n(?=[^\s])")
_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)


class MarkdownWriter:
    """Writes Markdown as it arrives: a complete block once, an incomplete one again with each text."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._growing = ""
        self._live: Live | None = None

    def write(self, text: str) -> None:
        """Add the next text, without its control characters."""
        if self._live is None:
            self._live = Live(
                console=self._console,
                get_renderable=lambda: _Tail(self._growing),
                refresh_per_second=FRAMES_PER_S,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._growing += "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
        complete, self._growing = _split(self._growing)
        if complete:
            self._console.print(Markdown(complete))
            self._console.print()

    def close(self) -> None:
        """Write the last block in full. A second call does nothing."""
        if self._live is not None:
            live, self._live = self._live, None
            last, self._growing = self._growing, ""
            live.transient = True
            live.stop()
            self._console.print(Markdown(last))


class _Tail:
    """The end of a growing block, as much as the screen holds."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(Markdown(self._text), options.update(height=None), pad=False)
        for line in lines[-max(1, console.height - 3) :]:
            yield from line
            yield Segment.line()
        yield Segment.line()  # on which the terminal shows ^C, that no drawn line is pushed on


def _split(text: str) -> tuple[str, str]:
    """The complete blocks, and the rest. No block ends within a code fence, nor before an indented line."""
    at = 0
    for end in _BLOCK_END.finditer(text):
        if len(_FENCE.findall(text, 0, end.start())) % 2 == 0:
            at = end.end()
    return text[:at].rstrip("\n"), text[at:]
