"""A transport that joins the small writes of one turn of the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

MAX_HELD_BYTES = 64 * 1024


class CoalescingTransport(asyncio.Transport):
    """What is written within one turn goes out as one write.

    An answer is at least two writes (head and body), the end of a stream three, and each is a system call
    of 6 to 12 us that wakes the reader. What a protocol needs of its transport beyond `asyncio.Transport`
    goes to the real one.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._size = 0
        self._written = 0
        self._paused = False
        self._reading_held = False

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the socket has not taken."""
        return self._size + self.transport.get_write_buffer_size()

    @property
    def sent_bytes(self) -> int:
        """Bytes that the socket took since the beginning."""
        return self._written - self.transport.get_write_buffer_size()

    @property
    def paused(self) -> bool:
        """Whether nothing is read now."""
        return self._paused or self._reading_held

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(bytes(data))
        self._size += len(data)
        if self._size >= MAX_HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand over what is held."""
        if not self._held:
            return
        held, self._held = self._held, []
        self._written += self._size
        self._size = 0
        if not self.transport.is_closing():
            self.transport.write(held[0] if len(held) == 1 else b"".join(held))

    def close(self) -> None:
        self.flush()
        self.transport.close()

    def abort(self) -> None:
        self._held, self._size = [], 0
        self.transport.abort()

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.transport.get_extra_info(name, default)

    def write_eof(self) -> None:
        self.flush()
        self.transport.write_eof()

    def pause_reading(self) -> None:
        self._paused = True
        self._update_reading()

    def resume_reading(self) -> None:
        self._paused = False
        self._update_reading()

    def hold_reading(self, held: bool) -> None:
        """Read nothing, or as the protocol wants: for who stands before it."""
        if held is not self._reading_held:
            self._reading_held = held
            self._update_reading()

    def _update_reading(self) -> None:
        if self.transport.is_closing():
            return
        if self.paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
