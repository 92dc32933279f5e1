"""Shows an answer and its run on a terminal, while they happen."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Self

from pydantic import ValidationError
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from actors.bus.bus import Bus
from actors.cli.display import PlainDisplay
from actors.cli.markdown import MarkdownWriter
from actors.cli.picture import draw
from actors.streams.run_events import RunEventReader
from orchestration.errors import OrchestraError
from orchestration.run_events import RunEvent, parse_events

FRAMES_PER_S = 8.0
MAX_EVENTS = 2_000
"""Maximum events that are drawn, the latest."""
MAX_LINES = 8
"""Maximum lines of progress, which are shown if a run's events are not available."""
FIRST_TEXT_S = 1.0
"""Time to wait for the event of the answer's first text, which follows all earlier events."""
END_S, NOTHING_S = 5.0, 1.0
"""Time to wait for a run's last events, which follow its answer; and for the first event if none has come, as
with a cached answer."""


class MarkdownDisplay(PlainDisplay):
    """The answer as formatted Markdown; progress in lines."""

    def __init__(self, *, closing_lines: bool = True) -> None:
        super().__init__(closing_lines=closing_lines)
        self._writer = MarkdownWriter(Console())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def answer(self, text: str) -> None:
        self._answering = True
        self._writer.write(text)


class LiveDisplay(PlainDisplay):
    """The run as a tree that changes in place.

    Where stdout is the same terminal (`shared`), the tree ends once the answer comes, which is formatted
    below it; what happens then follows the answer. Without closing lines the tree goes when the answer comes.
    """

    def __init__(self, bus: Bus, *, shared: bool, closing_lines: bool = True) -> None:
        super().__init__(closing_lines=closing_lines)
        self._bus = bus
        self._writer = MarkdownWriter(Console()) if shared else None
        self._events: deque[RunEvent] = deque(maxlen=MAX_EVENTS)
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._watching: asyncio.Task[None] | None = None
        self._live = Live(
            console=Console(stderr=True, highlight=False),
            get_renderable=self._drawn,
            refresh_per_second=FRAMES_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=shared and not closing_lines,
        )
        self._first_text = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._live.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watching is not None:
            if kind is None and not self._live_ended:
                await asyncio.wait({self._watching}, timeout=END_S if self._events else NOTHING_S)
            self._watching.cancel()
            await asyncio.wait({self._watching})
        self._live.stop()
        if self._writer is not None:
            self._writer.close()
        else:
            await super().__aexit__(kind, error, trace)

    @property
    def _live_ended(self) -> bool:
        """Whether the answer stands below the tree, which takes no more events then."""
        return self._answering and self._writer is not None

    def follow(self, run_id: str) -> None:
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch(run_id))

    def progress(self, text: str) -> None:
        if self._live_ended:
            self._held.append(text)
        else:
            self._lines.append(text)

    async def answer(self, text: str) -> None:
        if self._writer is None:
            await super().answer(text)
            return
        if not self._answering:
            if self._watching is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(FIRST_TEXT_S):
                        await self._first_text.wait()
            self._answering = True
            self._live.stop()
        self._writer.write(text)

    async def _watch(self, run_id: str) -> None:
        """Follow the run's events from its beginning. After an error, lines of progress are shown."""

        async def waits() -> bool:
            return True  # the answer itself says when it is over

        try:
            async with RunEventReader(self._bus, run_id) as watch, aclosing(watch.events(waits)) as events:
                async for event in events:
                    try:
                        self._events.extend(parse_events(event.data))
                    except ValidationError:  # a pattern published one of our types with other fields
                        continue
                    if event.type == "text_delta":
                        self._first_text.set()
        except OrchestraError as error:
            self._lines.append(f"the steps of the run cannot be shown: {error.message}")

    def _drawn(self) -> RenderableType:
        if self._events:
            return draw(tuple(self._events), time.time(), answering=self._answering)
        return Text("\n".join(f"· {line}" for line in self._lines), style="dim")
