"""Calls an endpoint that answers with a stream: see `actors.runtime.service`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from pydantic import ValidationError

from actors.bus.bus import Bus
from actors.bus.message import Message
from actors.runtime.envelope import Envelope
from actors.runtime.service import CALLER_LEFT, ERROR
from actors.telemetry.tracing import over_ns
from orchestration.errors import InternalError, NodeLost, NoResponders, OrchestraError, from_body
from orchestration.wire import ErrorBody


async def stream_call(
    bus: Bus, subject: str, body: bytes, envelope: Envelope, silence_s: float
) -> AsyncGenerator[bytes, None]:
    """Yield the messages of the answer as they come. Closing the iterator before the end stops the work.

    Raises `NoResponders` when no process serves `subject`, `NodeLost` when nothing came for `silence_s`
    seconds, and the error that the answer ended with.
    """
    call = _Call(bus)
    try:
        await bus.publish(subject, body, reply=call.reply, headers=envelope.headers())
        while True:
            try:
                async with asyncio.timeout(silence_s):
                    message = await call.messages.get()
            except TimeoutError:
                envelope.remaining(0)  # where the deadline passed, that is the error
                raise NodeLost(f"nothing came from {subject} for {silence_s:g} s") from None
            if message.status == "503":
                call.over = True
                raise NoResponders(f"nobody listens on {subject}")
            if message.header(ERROR):
                call.over = True
                raise _error(message)
            if not message.data:
                call.over = True
                return
            yield message.data
    finally:
        call.leave()


def _error(message: Message) -> OrchestraError:
    try:
        return from_body(ErrorBody.model_validate_json(message.data))
    except ValidationError:
        return InternalError(f"an error on {message.subject} cannot be read")


class _Call:
    """One call. A caller that leaves replies `CALLER_LEFT` to the next message."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.over = False
        self.reply = bus.expect(self._message)
        self._left = False
        self._probe = ""

    def _message(self, message: Message) -> None:
        self._probe = message.reply or self._probe
        if self._left:
            self._say_left()
        else:
            self.messages.put_nowait(message)

    def leave(self) -> None:
        self._left = True
        if self.over or self._probe:
            self._say_left()

    def _say_left(self) -> None:
        self.bus.forget(self.reply)
        if self._probe and not self.over:
            self.over = True
            with suppress(OrchestraError):  # NATS is away: the work ends with its deadline
                self.bus.post(self._probe, b"%b %d" % (CALLER_LEFT, over_ns()))
