"""What is between callers and nodes dies under load: a dispatcher, the NATS server."""

from __future__ import annotations

import asyncio
import signal

import pytest

from actors.runtime import provision
from tests.dispatcher.test_lost_processes import impatient
from tests.faults.fleet import Fleet
from tests.fixtures.eventually import eventually


async def test_a_dispatcher_is_killed_under_load(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    await fleet.nodes("a", "b")
    dispatcher = fleet.start("dispatcher", "dispatcher")
    await asyncio.to_thread(dispatcher.wait_for, "dispatcher is here")
    loading = asyncio.create_task(fleet.load())
    await fleet.until_answered(60, loading)
    fleet.send("dispatcher", signal.SIGKILL)
    # What it held comes back after the ack_wait, which is 30 s where nobody shortens it.
    monkeypatch.setattr(provision, "shipped", lambda: impatient(ack_wait_s=2))
    another = await fleet.stage.dispatcher(sees=2)
    await loading
    await fleet.stage.settled(another, within_s=20)


async def test_the_nats_server_restarts_under_load(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    # Acknowledgements that were on their way are lost: what they were for comes back, and nobody reads it.
    monkeypatch.setattr(provision, "shipped", lambda: impatient(ack_wait_s=2))
    await fleet.nodes("a", "b")
    dispatcher = await fleet.stage.dispatcher(sees=2)
    loading = asyncio.create_task(fleet.load())
    for answered in (40, 140):
        await fleet.until_answered(answered, loading)
        fleet.nats.kill()
        await eventually(lambda: not fleet.stage.bus.connected)
        await asyncio.to_thread(fleet.nats.restart)
    await loading
    await fleet.stage.settled(dispatcher, within_s=20)
