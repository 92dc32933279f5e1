"""What a connection to NATS still has to write."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from actors.bus.message import Headers, encode_headers

_BREATH_BYTES = 256 * 1024
_MESSAGE_BYTES = 512
"""After so many bytes, each message counted as 512 more, a publisher lets others run, and waits until the
socket has taken what was sent: one that never waits would keep the event loop for itself."""


class Connection(Protocol):
    """The parts of nats-py's client that are needed, private ones too."""

    _pending: list[bytes]
    _pending_data_size: int
    _transport: Any

    @property
    def is_connected(self) -> bool: ...


class WriteBuffer:
    """Commands are appended to nats-py's own list and written once per turn of the event loop: half of the
    CPU of a request went into a coroutine, a queue and a future around each."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._writing = False
        self._unwaited = 0
        """Bytes sent since a publisher last waited for the socket."""

    @property
    def crowded(self) -> bool:
        """Whether a publisher should wait, with `breathe`."""
        return self._unwaited > _BREATH_BYTES

    def count(self, size: int) -> None:
        """A message of `size` bytes went out, or past the server."""
        self._unwaited += size + _MESSAGE_BYTES

    def send(self, subject: str, reply: str, data: bytes, headers: Headers | None) -> None:
        """Queue one message for the next write."""
        if headers:
            block = encode_headers(headers)
            sizes = f"{len(block)} {len(block) + len(data)}"
            command = f"HPUB {subject} {reply} {sizes}\r\n".encode() + block + data + b"\r\n"
        else:
            command = f"PUB {subject} {reply} {len(data)}\r\n".encode() + data + b"\r\n"
        connection = self.connection
        connection._pending.append(command)
        connection._pending_data_size += len(command)
        self.count(len(command))
        if not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_soon(self.write_now)

    def write_now(self) -> None:
        """Hand everything queued to the socket. While the server is away it stays queued."""
        self._writing = False
        connection = self.connection
        if connection._pending and connection.is_connected and connection._transport:
            pending, size = connection._pending, connection._pending_data_size
            connection._pending, connection._pending_data_size = [], 0
            try:
                connection._transport.writelines(pending)
            except (OSError, RuntimeError):  # the socket has gone, and whoever reads from it hears so next
                connection._pending, connection._pending_data_size = pending, size

    async def breathe(self) -> None:
        """Wait until the socket has taken most of what was sent."""
        self._unwaited = 0
        await asyncio.sleep(0)
        self.write_now()
        if self.connection._transport:
            await self.connection._transport.drain()
