"""The base class of actors: a class with typed handlers.

    class Greeter(Actor):
        async def on_greet(self, message: Greet) -> Greeted: ...
        async def on_count(self, message: Count) -> AsyncIterator[int]:
            yield 1

A handler is a method `on_…` with one annotated message. A coroutine answers once; an async generator
streams. Handlers of one actor run one at a time unless `concurrency` says otherwise. An exception of a
handler is the error of its message, and does not affect the actor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar

from actors.runtime.actor_host import ActorRef
from orchestration.restarts import RestartPolicy


class Actor:
    """Base of all actors. Dependencies come in through `__init__`; nothing is global."""

    mailbox_size: ClassVar[int] = 1024
    """Maximum number of waiting messages; one more is refused with `MailboxFull`."""
    concurrency: ClassVar[int] = 1
    """Maximum number of handlers that run at once."""
    restart: ClassVar[RestartPolicy] = RestartPolicy()
    me: ActorRef
    """This actor as others see it, for messages to itself; set before `started`."""

    async def started(self) -> None:
        """Called before the first message, and after every restart (on the new instance)."""

    async def stopped(self) -> None:
        """Called after the last message, and before a restart (on the crashed instance)."""

    def run_loop(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run one of its own loops, for `stopped` to cancel. An exception of the loop restarts the actor."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._loop_ended)
        return task

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.me.host.crashed(self, error)
