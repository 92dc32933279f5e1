"""The actors of one process: spawned, referred to, drained in reverse order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from actors.runtime.actor import Actor
from actors.runtime.actor_host import ActorHost
from actors.runtime.envelope import Envelope, current_envelope
from actors.runtime.invocation import NULL_SINK, AnswerSink, Invocation, ResultSink, StreamSink

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Actor)


@dataclass(frozen=True, slots=True)
class ActorRef:
    """How everyone else speaks to an actor. `own` marks the one that an actor has of itself."""

    host: ActorHost
    own: bool = False

    @property
    def name(self) -> str:
        return self.host.name

    def tell(self, message: Any, envelope: Envelope | None = None) -> None:
        """Put a message into the mailbox. Raises `MailboxFull` or `Unavailable` at once, TypeError for
        a message without a handler."""
        self.deliver(message, NULL_SINK, envelope)

    def deliver(self, message: Any, sink: ResultSink, envelope: Envelope | None = None) -> Invocation:
        """Like `tell`, with the answer going to `sink`; the returned work can be cancelled."""
        work = Invocation(message, current_envelope.get() if envelope is None else envelope, sink)
        self.host.admit(work, own=self.own)
        return work

    async def ask(self, message: Any, envelope: Envelope | None = None) -> Any:
        """The handler's result, or its error. Cancelling the ask cancels the handler.

        Raises TypeError where the handler streams.
        """
        if self.host.spec(message).streams:
            raise TypeError(f"{self.name} streams its answer to {type(message).__name__}: use `stream`")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        work = self.deliver(message, AnswerSink(answer), envelope)
        try:
            return await answer
        except asyncio.CancelledError:
            work.cancel()
            raise

    async def stream(self, message: Any, envelope: Envelope | None = None) -> AsyncGenerator[Any, None]:
        """The values a streaming handler yields. Closing the iterator cancels the handler.

        Raises TypeError where the handler answers once.
        """
        if not self.host.spec(message).streams:
            raise TypeError(f"{self.name} answers {type(message).__name__} once: use `ask`")
        sink = StreamSink()
        work = self.deliver(message, sink, envelope)
        ended = False
        try:
            while True:
                more, value = await sink.next()
                if not more:
                    ended = True
                    return
                yield value
        finally:
            if not ended:
                sink.abandon()
                work.cancel()


@dataclass(slots=True, eq=False)
class ActorSystem:
    """Owns the actors of a process."""

    hosts: dict[str, ActorHost] = field(default_factory=dict)
    actor_failed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a supervisor gave up on an actor: the process should not pretend to be well."""

    async def spawn(self, kind: type[A], factory: Callable[[], A], *, name: str = "") -> ActorRef:
        """Start an actor. Raises ValueError for a name in use, and whatever its `started` raises."""
        name = name or kind.__name__.lower()
        if name in self.hosts:
            raise ValueError(f"an actor {name!r} is already here")

        def make() -> A:
            actor = factory()
            actor.me = ActorRef(host, own=True)
            return actor

        host = ActorHost(name, kind, make)
        host.on_failure = lambda _: self.actor_failed.set()
        self.hosts[name] = host
        try:
            await host.start()
        except BaseException:
            del self.hosts[name]
            raise
        return ActorRef(host)

    async def drain(self, limit_s: float) -> bool:
        """Drain all actors, the last spawned first, within `limit_s` seconds in all.

        True when nothing had to be cancelled.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_s
        clean = True
        for name in reversed(list(self.hosts)):
            host = self.hosts.pop(name)
            clean = await host.drain(max(0.0, end - loop.time())) and clean
        return clean
