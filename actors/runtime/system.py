"""The actors of one process: spawned, and drained in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from actors.runtime.actor import Actor
from actors.runtime.actor_host import ActorHost, ActorRef

A = TypeVar("A", bound=Actor)


@dataclass(slots=True, eq=False)
class ActorSystem:
    """Owns the actors of a process."""

    hosts: dict[str, ActorHost] = field(default_factory=dict)
    """The running actors by name."""
    actor_failed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when an actor crashed too often and stays down; the process should then end."""

    async def spawn(self, kind: type[A], factory: Callable[[], A], *, name: str = "") -> ActorRef:
        """Start an actor. Raises ValueError for a name in use, and what its `started` raises."""
        name = name or kind.__name__.lower()
        if name in self.hosts:
            raise ValueError(f"an actor {name!r} runs already")

        def make() -> A:
            actor = factory()
            actor.me = ActorRef(host, own=True)
            return actor

        host = ActorHost(name, kind, make, on_failure=self.actor_failed.set)
        self.hosts[name] = host
        try:
            await host.start()
        except BaseException:
            del self.hosts[name]
            raise
        return ActorRef(host)

    async def drain(self, limit_s: float) -> bool:
        """Drain all actors, the last spawned first, within `limit_s` seconds in all.

        Returns whether nothing had to be cancelled.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_s
        clean = True
        for name in reversed(list(self.hosts)):
            host = self.hosts.pop(name)
            clean = await host.drain(max(0.0, end - loop.time())) and clean
        return clean
