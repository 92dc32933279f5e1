"""An actor for tests: its handlers wait for gates, so that a test decides when they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from pydantic import BaseModel

from actors.runtime.actor import Actor
from actors.runtime.envelope import Envelope, current_envelope


@dataclass(slots=True)
class Gate:
    """Shared by a test and its actor. Handlers that wait here go on when it opens."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)
    entered: int = 0
    most: int = 0
    now: int = 0
    cancelled: int = 0

    async def wait(self) -> None:
        self.entered += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1


class Greet(BaseModel):
    name: str


class Greeted(BaseModel):
    text: str


class Count(BaseModel):
    to: int


class Wait(BaseModel):
    """Wait for the gate, then answer with how the message was admitted."""


class Crash(BaseModel):
    """Fail on this message."""


@dataclass(frozen=True, slots=True)
class Raise:
    """Fail on this message with `error`."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class RaiseLate:
    """Stream a value, then fail."""

    error: BaseException


class Die(BaseModel):
    """Have a loop of one's own fail."""


class Tell(BaseModel):
    """Greet oneself later."""

    times: int


class Greeter(Actor):
    """Handles each of the messages above."""

    def __init__(self, gate: Gate | None = None) -> None:
        self.gate = gate or Gate()
        self.log: list[str] = []

    async def started(self) -> None:
        self.log.append("started")

    async def stopped(self) -> None:
        self.log.append("stopped")

    async def on_greet(self, message: Greet) -> Greeted:
        self.log.append(message.name)
        return Greeted(text=f"hello {message.name}")

    async def on_count(self, message: Count) -> AsyncIterator[Greeted]:
        try:
            for number in range(message.to):
                yield Greeted(text=str(number))
        finally:
            self.log.append("counted")

    async def on_wait(self, message: Wait) -> Envelope:
        await self.gate.wait()
        return current_envelope.get()

    async def on_crash(self, message: Crash) -> None:
        raise RuntimeError("told to crash")

    async def on_raise(self, message: Raise) -> None:
        raise message.error

    async def on_raise_late(self, message: RaiseLate) -> AsyncIterator[str]:
        yield "something"
        raise message.error

    async def on_die(self, message: Die) -> None:
        async def loop() -> None:
            raise RuntimeError("told to die")

        self.run_loop(loop())

    async def on_tell(self, message: Tell) -> None:
        if message.times:
            await self.gate.wait()
            self.me.tell(Tell(times=message.times - 1))
        else:
            self.log.append("told")


class WideGreeter(Greeter):
    concurrency = 64
    mailbox_size = 8


class SmallGreeter(Greeter):
    mailbox_size = 2
