"""What follows a crash: stop the instance, wait, start a fresh one, or give up loudly."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from actors.telemetry.telemetry import ACTOR_RESTARTS, ACTORS_FAILED
from orchestration.restarts import Restarts

if TYPE_CHECKING:
    from actors.runtime.actor_host import ActorHost

log = logging.getLogger(__name__)

STOP_S = 5.0
"""How long an actor may take to stop; after it, it is left behind."""


class Restarter:
    """The supervisor of one cell, made at its first crash."""

    def __init__(self, host: ActorHost) -> None:
        self.host = host
        self.restarts = Restarts(host.kind.restart)
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Call it at a crash; the cell takes no message up until `resume`."""
        self._task = asyncio.get_running_loop().create_task(self._restart())

    async def stop(self) -> bool:
        """Do not bring it back. True when a restart was under way."""
        if self._task is None or self._task.done():
            return False
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=STOP_S)
        return True

    async def _restart(self) -> None:
        host = self.host
        await host.stop_actor()
        while True:
            delay = self.restarts.after_crash(time.monotonic(), random.random())
            if delay is None:
                await self._fail()
                return
            await asyncio.sleep(delay)
            try:
                await host.renew()
            except Exception as error:
                log.error("%s did not come back", host.name, exc_info=error)
                host.last_error = error
                continue
            ACTOR_RESTARTS.labels(host.kind.__name__).inc()
            log.warning("%s restarted after %.2f s", host.name, delay)
            host.resume()
            return

    async def _fail(self) -> None:
        host = self.host
        ACTORS_FAILED.labels(host.kind.__name__).inc()
        log.critical(
            "%s gave up: more than %d restarts in %.0f s; the last error: %r",
            host.name,
            host.kind.restart.max_restarts,
            host.kind.restart.window_s,
            host.last_error,
        )
        await host.fail()
