"""What one writes: a class with typed handlers.

    class Greeter(Actor):
        async def on_greet(self, message: Greet) -> Greeted: ...
        async def on_count(self, message: Count) -> AsyncIterator[int]:
            yield 1

A handler is a method `on_…` with one annotated message. A coroutine answers once; an async generator
streams. Handlers of one actor run one at a time unless `concurrency` says otherwise. What a handler raises
is the error of its message alone.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from orchestration.restarts import RestartPolicy

if TYPE_CHECKING:
    from actors.runtime.system import ActorRef


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """One handler of an actor class: its method's name and whether it streams."""

    method: str
    message: type
    streams: bool


class Actor:
    """Base of all actors. Dependencies come in through `__init__`; nothing is global."""

    mailbox_size: ClassVar[int] = 1024
    """Messages that may wait; one more is refused with `MailboxFull`."""
    concurrency: ClassVar[int] = 1
    """Handlers that may run at once."""
    restart: ClassVar[RestartPolicy] = RestartPolicy()
    me: ActorRef
    """This actor as others see it; set before `started`. For messages to oneself."""

    async def started(self) -> None:
        """Called before the first message, and after every restart (on the new instance)."""

    async def stopped(self) -> None:
        """Called after the last message, and before a restart (on the crashed instance)."""

    def run_loop(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run one of its own loops, for `stopped` to cancel. What it raises restarts the actor."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._loop_ended)
        return task

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.me.host.crashed(self, error)


Handle = Callable[[Any, Any], Any]
_cache: dict[type[Actor], dict[type, HandlerSpec]] = {}


def handlers(kind: type[Actor]) -> dict[type, HandlerSpec]:
    """Message type to handler. Raises TypeError for a handler without an annotated message."""
    found = _cache.get(kind)
    if found is None:
        found = _cache[kind] = _inspect(kind)
    return found


def _inspect(kind: type[Actor]) -> dict[type, HandlerSpec]:
    found: dict[type, HandlerSpec] = {}
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("on_"):
            continue
        parameters = list(inspect.signature(method).parameters)
        message = get_type_hints(method).get(parameters[1]) if len(parameters) == 2 else None
        if not isinstance(message, type):
            raise TypeError(f"{kind.__name__}.{name} must take one message with a class as its annotation")
        if message in found:
            raise TypeError(f"{kind.__name__} handles {message.__name__} twice")
        streams = inspect.isasyncgenfunction(method)
        if not streams and not inspect.iscoroutinefunction(method):
            raise TypeError(f"{kind.__name__}.{name} must be a coroutine or an async generator")
        found[message] = HandlerSpec(name, message, streams)
    return found
