"""Reads lines from stdin without a thread, so that Ctrl-C ends the wait for a line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

READ_BYTES = 65_536
MAX_LINE_BYTES = 8 * 2**20
"""Maximum length of a line; a longer one is cut."""


class LineReader:
    """Reads lines from a terminal, a pipe or a file."""

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._read = b""
        self._ended = False

    async def next(self) -> str:
        """The next line without its end; '' at the end of the input."""
        while b"\n" not in self._read and not self._ended and len(self._read) < MAX_LINE_BYTES:
            await self._readable()
            data = os.read(self._fd, READ_BYTES)
            self._ended = not data
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line.decode(errors="replace").strip()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        notify: Callable[[], None] = ready.set
        try:
            loop.add_reader(self._fd, notify)
        except (OSError, RuntimeError):  # a file is always readable, and cannot be waited for
            return
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._fd)
