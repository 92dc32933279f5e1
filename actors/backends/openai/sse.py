"""Parses server-sent events from blocks of bytes."""

from __future__ import annotations

from orchestration.errors import BackendFailed

_BOM = b"\xef\xbb\xbf"


class SseParser:
    """Takes blocks of bytes and returns the data of completed events.

    Follows the WHATWG "event stream interpretation": lines end in LF, CR or CRLF, `data` lines of one
    event are joined by LF, comments and other fields are skipped, an empty line ends an event. The
    bytes held back are bounded by `limit_bytes`, for a line and for an event.
    """

    __slots__ = ("_data", "_data_bytes", "_first", "_limit", "_parts", "_parts_bytes", "_skip_lf")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        # The parts of the incomplete line, joined when it ends: appending to one bytes object would take
        # quadratic time for a long line in small blocks.
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._skip_lf = False
        self._first = True

    def feed(self, block: bytes) -> list[bytes]:
        """The data of every event that `block` completes; raises `BackendFailed` over the limit."""
        if self._skip_lf and block:
            self._skip_lf = False
            if block[0] == 0x0A:
                block = block[1:]
        if b"\r" in block:
            self._skip_lf = block.endswith(b"\r")
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = block.split(b"\n")
        rest = lines.pop()
        events: list[bytes] = []
        for line in lines:
            if self._parts:
                self._parts.append(line)
                line = b"".join(self._parts)
                self._parts.clear()
                self._parts_bytes = 0
            self._line(line, events)
        if rest:
            self._parts.append(rest)
            self._parts_bytes += len(rest)
            if self._parts_bytes > self._limit:
                raise self._too_long(self._parts_bytes)
        return events

    def flush(self) -> list[bytes]:
        """The data of an event whose closing empty line never came; call it at the end of the stream."""
        events = self.feed(b"\n") if self._parts else []
        self._line(b"", events)
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data.clear()
                self._data_bytes = 0
        elif line.startswith(b"data:"):
            data = line[6:] if line[5:6] == b" " else line[5:]
            if self._data and self._begins_another(data):
                self._line(b"", events)
            self._data_bytes += len(data) + 1
            if self._data_bytes > self._limit:
                raise self._too_long(self._data_bytes)
            self._data.append(data)
        elif line == b"data":
            self._line(b"data:", events)

    def _begins_another(self, data: bytes) -> bool:
        """Whether the line begins another event although the empty line is missing, as some servers do: JSON
        does not continue like this after the end of an object."""
        return data.lstrip()[:1] in (b"{", b"[") and self._data[-1].rstrip().endswith(b"}")

    def _too_long(self, size: int) -> BackendFailed:
        return BackendFailed(f"an event of at least {size} bytes exceeds max_line_bytes {self._limit}")
