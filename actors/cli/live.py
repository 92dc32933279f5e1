"""What is shown on stderr while a question is answered."""

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

from actors.cli.picture import draw
from actors.run_watch import RunWatch
from actors.runtime.bus import Bus
from orchestration.errors import OrchestraError
from orchestration.run_events import RunEvent, parse_events

FRAMES_PER_S = 8.0
MOST_EVENTS = 2_000
"""That are drawn; of a longer run the latest."""
MOST_LINES = 8
"""Of progress, where a run's events are not to be had."""
SAID_S = 1.0
"""Waited for the event of the answer's first text, before which all that led to it is told."""
END_S, NOTHING_S = 5.0, 1.0
"""Waited for a run's last events, which come a moment after its answer; and where none came so far, as of an
answer that was kept, for any."""


class PlainDisplay:
    """A line of progress after another. Use it in an `async with` block, as its subclass."""

    def __init__(self, console: Console) -> None:
        self.console = console

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The answer is there, or failed."""

    def follow(self, run_id: str) -> None:
        """The run's id is known now. Harmless to call again."""

    def progress(self, text: str) -> None:
        self.console.print(f"· {text}", style="dim", markup=False)

    async def answering(self) -> None:
        """The answer's next text is about to go to stdout."""

    def ended(self, notes: list[str]) -> None:
        """The answer is complete; what the caller should know of it. Call it after the block."""
        for note in notes:
            self.console.print(f"note: {note}", style="yellow", markup=False)


class LiveDisplay(PlainDisplay):
    """The run as a tree that changes in place. Where stdout is the same terminal (`shared`), it stands still
    once the answer comes, and what happens then is told below the answer."""

    def __init__(self, console: Console, bus: Bus, *, shared: bool) -> None:
        super().__init__(console)
        self._bus = bus
        self._shared = shared
        self._events: deque[RunEvent] = deque(maxlen=MOST_EVENTS)
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._watching: asyncio.Task[None] | None = None
        self._live = Live(
            console=console,
            get_renderable=self._drawn,
            refresh_per_second=FRAMES_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._still = False
        self._said = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._live.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watching is not None:
            if kind is None:
                await asyncio.wait({self._watching}, timeout=END_S if self._events else NOTHING_S)
            self._watching.cancel()
            await asyncio.wait({self._watching})
        self._live.stop()

    def follow(self, run_id: str) -> None:
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch(run_id))

    def progress(self, text: str) -> None:
        self._lines.append(text)

    async def answering(self) -> None:
        if self._shared and not self._still:
            self._still = True
            if self._watching is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(SAID_S):
                        await self._said.wait()
            self._live.stop()
            self._lines.clear()

    def ended(self, notes: list[str]) -> None:
        for line in self._lines if self._still else ():
            if line not in notes:
                super().progress(line)
        super().ended(notes)

    async def _watch(self, run_id: str) -> None:
        """Hear what happens, from the run's beginning. Whatever goes wrong leaves the lines of progress."""

        async def waits() -> bool:
            return True  # the answer itself says when it is over

        try:
            async with RunWatch(self._bus, run_id) as watch, aclosing(watch.events(waits)) as events:
                async for told in events:
                    try:
                        self._events.extend(parse_events(told.data))
                    except ValidationError:  # of a pattern that tells an event of ours in another form
                        continue
                    if told.kind == "said":
                        self._said.set()
        except OrchestraError as error:
            self._lines.append(f"what happens in the run cannot be shown: {error.message}")

    def _drawn(self) -> RenderableType:
        if self._events:
            return draw(tuple(self._events), time.time())
        return Text("\n".join(f"· {line}" for line in self._lines), style="dim")
