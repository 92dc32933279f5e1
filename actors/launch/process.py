"""What all `orchestra` processes share: logs, the event loop, signals, and the conditions that end them."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvloop

from actors.bus.bus import Bus
from actors.config.client import ClientSettings
from actors.runtime.failures import internal_error
from actors.telemetry.local_log import log_handler
from actors.telemetry.settings import TelemetrySettings
from orchestration.errors import OrchestraError

log = logging.getLogger(__name__)

T = TypeVar("T")

LOCAL = "orchestra-local"
"""Name of the handler of log lines."""
COLLECT_AFTER = (20_000, 20, 20)
"""Thresholds of Python's garbage collector. Nearly all objects of a request are freed by reference counts;
with Python's defaults the search for cycles takes a tenth of the CPU time of an answer."""


class RoleEnded(OrchestraError):
    """A part of the process ended that should not; the process stops with this error."""


def configure_logging(settings: TelemetrySettings) -> None:
    """One line per record, on stderr or in a file. Raises `InvalidRequest` for a file that cannot be
    written."""
    handler = log_handler(settings)
    handler.name = LOCAL
    logging.basicConfig(handlers=[handler], force=True)
    set_log_level(settings)
    logging.getLogger("nats").setLevel(logging.CRITICAL)  # the bus logs the same events


def set_log_level(settings: TelemetrySettings) -> None:
    """Use another minimum level of log lines from now on. The central log has one of its own."""
    root = logging.getLogger()
    level = logging.getLevelNamesMapping()[settings.log_level]
    for handler in root.handlers:
        if handler.name == LOCAL:
            handler.setLevel(level)
    root.setLevel(min(level, logging.WARNING))


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on uvloop.

    If a task or callback of a plug-in calls `sys.exit`, the loop ends; it is then continued.
    """
    task: asyncio.Task[T] | None = None

    async def guarded() -> T:
        nonlocal task
        task = task or asyncio.get_running_loop().create_task(main)
        return await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while True:
            try:
                return runner.run(guarded())
            except SystemExit as error:
                if task is None or task.done():
                    raise
                internal_error("a task without an owner", error, "process")


@asynccontextmanager
async def connected(settings: ClientSettings, url: str, name: str) -> AsyncIterator[Bus]:
    """A bus to the NATS server at `url`, closed at the end."""
    bus = await Bus.connect(settings.nats.model_copy(update={"url": url}), name=name)
    try:
        yield bus
    finally:
        await bus.close()


def ignore_hangup() -> None:
    """Ignore SIGHUP, so that a server does not end when its terminal closes."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def stop_on_signals() -> asyncio.Event:
    """Return an event that the first SIGINT or SIGTERM sets. The second one kills the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("second signal: stopping at once, without waiting for requests in flight")
            loop.remove_signal_handler(number)
            signal.raise_signal(signal.SIGKILL)
        log.info("stopping: requests in flight are finished first; a second signal stops at once")
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    return stop


def freeze_garbage_collector() -> None:
    """Exclude all objects that exist now from garbage collection. Call it once everything is loaded."""
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def until(stop: asyncio.Event, *watches: Callable[[], Awaitable[object]]) -> None:
    """Wait for `stop`. A watch that returns or raises ends the wait with its error."""
    freeze_garbage_collector()

    async def watch(call: Callable[[], Awaitable[object]]) -> None:
        await call()

    stopping = asyncio.ensure_future(stop.wait())
    watching = [asyncio.ensure_future(watch(call)) for call in watches]
    try:
        done, _ = await asyncio.wait([stopping, *watching], return_when=asyncio.FIRST_COMPLETED)
        for ended in done - {stopping}:
            ended.result()
    finally:
        for task in [stopping, *watching]:
            task.cancel()
        await asyncio.gather(stopping, *watching, return_exceptions=True)


def raise_when_set(event: asyncio.Event, reason: str) -> Callable[[], Awaitable[None]]:
    """A watch that raises `RoleEnded(reason)` once `event` is set."""

    async def wait() -> None:
        await event.wait()
        raise RoleEnded(reason)

    return wait
