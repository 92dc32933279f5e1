"""The reader of a stream, as a process sees it that has a writer continue the stream or race another one.

`RemoteReader` asks the reader over NATS; `LocalReader` is for the process that reads the stream itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from pydantic import ValidationError

from actors.bus.bus import Bus
from actors.bus.message import Message
from actors.bus.subjects import StreamAddress
from actors.streams.reader import DEFAULT_LIMITS, OnEnd, StreamReader
from orchestration.errors import DeadlineExceeded, InternalError, NoResponders, OrchestraError
from orchestration.messages import HandoffRequest, StreamPosition

log = logging.getLogger(__name__)

PEEK_TIMEOUT_S = 1.0
HANDOFF_TIMEOUT_S = 2.0
"""How long to wait for one answer of the reader, which takes a millisecond, before it is asked again."""
READER_WAIT_S = DEFAULT_LIMITS.max_outage_s
"""How long the reader may be away before it counts as gone. After a restart of NATS it may reconnect later
than the process that asks; it keeps its streams open for as long."""
PAUSE_S = 0.1
"""Pause between two requests while nobody subscribes to them."""

OnWinner = Callable[[str], None]
"""Receives the name of the writer that began first, '' for the first one."""


class StreamOwner(Protocol):
    """Where one stream is read. An `attempt` is the delivery number of the work."""

    @property
    def first_text_s(self) -> float:
        """Seconds from the sending of a streamed model call to its first text; 0 if there was none, or
        another process reads the stream."""

    async def position(self, *, quiet_s: float = 0.0, attempt: int = 0) -> StreamPosition:
        """Take the stream over: the reader's position, with the name of the next writer.

        The position is `superseded` if a delivery later than `attempt` has been taken up. With `quiet_s`
        above 0, a writer that sent something within so many seconds keeps the stream. The position is not
        `open` if the stream has no reader any more.
        """

    async def peek(self, quiet_s: float) -> StreamPosition | None:
        """Whether the writer has sent something within `quiet_s` seconds (`alive`), and the number of its
        events (`events`). None if the reader does not answer."""

    async def is_superseded(self, attempt: int) -> bool:
        """Whether a delivery of the work later than `attempt` has been taken up. False if the reader does not
        answer."""

    async def race(self, on_winner: OnWinner) -> StreamPosition:
        """Register a second writer, whose name is in the position; `alive` if some of the stream was read
        already. `on_winner` gets the name of the writer that began first, until `end_race`."""

    def end_race(self) -> None:
        """Call `on_winner` no more."""

    def expect_end(self, on_end: OnEnd | None) -> bool:
        """Have `on_end` called with the end of the stream and the name of its writer. False if the stream is
        read in another process: then it is not called."""


class LocalReader:
    """The owner of a stream that this process reads."""

    __slots__ = ("_on_winner", "reader")

    def __init__(self, reader: StreamReader) -> None:
        self.reader = reader
        self._on_winner: OnWinner | None = None

    @property
    def first_text_s(self) -> float:
        return self.reader.first_text_s

    async def position(self, *, quiet_s: float = 0.0, attempt: int = 0) -> StreamPosition:
        return self.reader.hand_off(quiet_s, attempt)

    async def peek(self, quiet_s: float) -> StreamPosition | None:
        return self.reader.peek(quiet_s)

    async def is_superseded(self, attempt: int) -> bool:
        return self.reader.peek(0.0, attempt).superseded

    async def race(self, on_winner: OnWinner) -> StreamPosition:
        self._on_winner = on_winner
        return self.reader.race(self._decided)

    def end_race(self) -> None:
        self._on_winner = None

    def expect_end(self, on_end: OnEnd | None) -> bool:
        self.reader.on_end = on_end
        return True

    def _decided(self, winner: str) -> None:
        if self._on_winner is not None:
            self._on_winner(winner)


class RemoteReader:
    """The owner of a stream that any process reads.

    Raises `DeadlineExceeded` when the reader has not answered for `READER_WAIT_S`, `InternalError` when its
    answer cannot be decoded (the reader is of another version), and `BusUnavailable`.
    """

    __slots__ = ("_here", "_winner_subject", "bus", "stream_id")

    def __init__(self, bus: Bus, stream_id: str) -> None:
        self.bus = bus
        self.stream_id = stream_id
        readers = bus.local_streams.get(stream_id.partition(".")[0])
        self._here = None if readers is None else readers.get(stream_id)
        self._winner_subject = ""

    @property
    def first_text_s(self) -> float:
        return self._here.first_text_s if isinstance(self._here, StreamReader) else 0.0

    async def position(self, *, quiet_s: float = 0.0, attempt: int = 0) -> StreamPosition:
        """See `StreamOwner`. The position is not open if the stream has had no reader for `READER_WAIT_S`."""
        request = HandoffRequest(quiet_s=quiet_s, attempt=attempt)
        gone_at = time.monotonic() + READER_WAIT_S
        while True:
            try:
                return await self._ask(request, HANDOFF_TIMEOUT_S)
            except NoResponders:
                if time.monotonic() > gone_at:
                    return StreamPosition(open=False)
                await asyncio.sleep(PAUSE_S)
            except DeadlineExceeded:  # the request or its answer was lost with a NATS server
                if time.monotonic() > gone_at:
                    raise

    async def peek(self, quiet_s: float) -> StreamPosition | None:
        return await self._peek(HandoffRequest(quiet_s=quiet_s, peek=True))

    async def is_superseded(self, attempt: int) -> bool:
        position = await self._peek(HandoffRequest(attempt=attempt, peek=True))
        return position is not None and position.superseded

    async def race(self, on_winner: OnWinner) -> StreamPosition:
        """See `StreamOwner`. Raises `NoResponders` too."""

        def decided(message: Message) -> None:
            on_winner(message.data.decode(errors="replace"))

        self.end_race()
        self._winner_subject = self.bus.expect(decided)
        return await self._ask(HandoffRequest(winner_subject=self._winner_subject), HANDOFF_TIMEOUT_S)

    def end_race(self) -> None:
        self.bus.forget(self._winner_subject)

    def expect_end(self, on_end: OnEnd | None) -> bool:
        return False

    async def _peek(self, request: HandoffRequest) -> StreamPosition | None:
        try:
            return await self._ask(request, PEEK_TIMEOUT_S)
        except OrchestraError as error:
            log.debug("the reader of stream %s did not report its writer: %s", self.stream_id, error)
            return None

    async def _ask(self, request: HandoffRequest, timeout_s: float) -> StreamPosition:
        subject, body = StreamAddress(self.stream_id).handoff, request.model_dump_json().encode()
        reply = await self.bus.request(subject, body, timeout=timeout_s)
        try:
            return StreamPosition.model_validate_json(reply.data)
        except ValidationError as error:
            raise InternalError(
                f"the position of stream {self.stream_id} cannot be decoded; "
                "is its reader of another version?"
            ) from error
