"""The processes of the cluster, those included that have not answered lately."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from pydantic_core import to_json

from actors.admin.requests import PageRequest, page_of
from actors.bus.bus import Bus, Message, Subscription
from actors.gateway.operation import CallContext, Reply
from actors.runtime.commands import CommandAnswers, ask_all
from actors.runtime.processes import ProcessInfo, list_processes
from orchestration.errors import OrchestraError

POLL_S = 10.0
"""Time between two calls to all processes."""
FORGET_S = 60.0
"""A process that has not answered for this long counts as gone."""


class ClusterProcesses:
    """Remembers which processes there are, so that the silence of one is noticed."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._seen: dict[str, tuple[float, ProcessInfo]] = {}
        self._polling: asyncio.Task[None] | None = None
        self._leaving: Subscription | None = None

    async def start(self) -> None:
        self._leaving = await self.bus.subscribe("process.*.left", self._left)
        self._polling = asyncio.get_running_loop().create_task(self._poll())

    async def stop(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait([self._polling])
        if self._leaving is not None:
            await self._leaving.unsubscribe()

    def _left(self, message: Message) -> None:
        self._seen.pop(message.data.decode(errors="replace"), None)

    async def refresh(self) -> set[str]:
        """Ask all processes now; returns the ids of those that have answered. Raises `BusUnavailable`."""
        answered = await list_processes(self.bus)
        now = time.time()
        self._seen |= {info.id: (now, info) for info in answered}
        self._seen = {key: (at, info) for key, (at, info) in self._seen.items() if at > now - FORGET_S}
        return {info.id for info in answered}

    async def ask(self, verb: str, request: Any, role: str) -> CommandAnswers:
        """Send a command to all processes; those that have `role` are expected to answer."""
        expected = [key for key, (_, info) in self._seen.items() if role in info.roles]
        return await ask_all(self.bus, verb, request, expected=expected)

    async def list_processes(self, request: PageRequest, call: CallContext) -> Reply:
        up = await self.refresh()
        rows = [self._seen[key] for key in sorted(self._seen)]

        def shown(row: tuple[float, ProcessInfo]) -> dict[str, Any]:
            return _shown(row[1], row[0], up=row[1].id in up)

        return Reply(body=to_json(page_of(rows, request, lambda row: row[1].id, shown)))

    async def _poll(self) -> None:
        while True:
            with suppress(OrchestraError):  # NATS is away: nothing can be learnt
                await self.refresh()
            await asyncio.sleep(POLL_S)


def _shown(info: ProcessInfo, seen_at: float, *, up: bool) -> dict[str, Any]:
    now = time.time()
    return (
        {"state": "up" if up else "silent"}
        | info.model_dump(mode="json")
        | {
            "uptime_s": round(max(0.0, now - info.started_at), 1),
            "seen_s_ago": round(now - seen_at, 1),
        }
    )
