"""Life as one of several machines: wait for a majority, grow to three replicas, or be a plain peer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from actors.bus.bus import Bus, BusSettings
from actors.bus.declarations import shipped_declaration
from actors.bus.drift import stream_configs
from actors.bus.provision import JetStreamError, apply, call_api, replicate
from actors.cluster.store_migration import migrate_store
from actors.nats_server import EmbeddedNats, NatsServerSettings
from actors.nats_server.cluster import holds_streams, is_member
from actors.nats_server.files import ServerFiles
from orchestration.errors import BusUnavailable, DeadlineExceeded, OrchestraError, Unavailable

log = logging.getLogger(__name__)

REPLICAS = 3
"""One may die and two are still a majority. More would cost every write and gain little."""
GROW_S = 5.0
"""How often a cluster that has not grown yet is asked whether it can."""
SETTLE_S = 60.0
"""How often one that has is looked at: a stream made since may have fewer."""
ROUTES_S = 3.0
"""A new server hears of the cluster's streams within this, or there are none."""
LEADER_S = 1.0
"""A cluster with a leader answers within this. One without says nothing."""
TOGETHER_S = 6.0
"""Machines that start together are given so long to become three, from when two are a majority."""
NAME_IN_USE = 10058
_POLL_S = 0.25


async def has_enough_replicas(settings: NatsServerSettings, bus_settings: BusSettings) -> bool:
    """Whether three others keep the streams already, so that this server should only be a plain peer.

    A server that kept streams before goes on. Found out by joining without a store for a moment.
    """
    files = ServerFiles(settings.data)
    if is_member(files) or holds_streams(files):
        return False
    async with EmbeddedNats(settings.model_copy(update={"jetstream": False})) as server:
        bus = await Bus.connect(bus_settings.model_copy(update={"url": server.url}), name="orchestra-join")
        try:
            async with asyncio.timeout(ROUTES_S):
                while (found := await _fewest_replicas(bus)) is None:  # noqa: ASYNC110 - asks the server
                    await asyncio.sleep(_POLL_S)
            return found >= REPLICAS
        except TimeoutError:
            return False
        finally:
            await bus.close()


@asynccontextmanager
async def join_cluster(bus: Bus, server: EmbeddedNats) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Wait until the cluster can keep streams, bring along what this machine kept alone, keep growing.

    Yields a watch that returns never, and raises what ends the growing.
    """
    await _declared(bus, server)
    await migrate_store(bus, server)
    task = asyncio.get_running_loop().create_task(_grow(bus), name="grow-cluster")

    async def watch() -> None:
        await asyncio.shield(task)

    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _declared(bus: Bus, server: EmbeddedNats) -> None:
    """Declare the streams, with three replicas where three servers come within `TOGETHER_S`.

    To change a stream that exists from one to three leaves it without a leader for a moment, up to 10 s.
    """
    loop = asyncio.get_running_loop()
    told, until = False, 0.0
    while True:
        try:
            await bus.request("$JS.API.INFO", timeout=LEADER_S)
            until = until or loop.time() + TOGETHER_S
            room = await _is_room_for_replicas(bus)
            if room or loop.time() > until:
                drifts = await apply(bus, shipped_declaration(), replicas=REPLICAS if room else 1)
                if not any(drift.refusal for drift in drifts):
                    return
                reason = next(drift.refusal for drift in drifts if drift.refusal)
            else:
                reason = "two of three are here"
        except (Unavailable, DeadlineExceeded) as error:
            reason = error.message
        if not told:
            told = True
            log.warning(
                "waiting for the other machines of the cluster, %s (%s): streams need a majority of the "
                "servers that keep them",
                ", ".join(server.settings.join),
                reason,
            )
        await asyncio.sleep(_POLL_S)


async def _is_room_for_replicas(bus: Bus) -> bool:
    """Whether enough servers are there: the first declared stream is made so, or changed, if they are."""
    name, config = next(iter(stream_configs(shipped_declaration(), replicas=REPLICAS).items()))
    try:
        await call_api(bus, f"STREAM.CREATE.{name}", config)
    except JetStreamError as error:
        return error.err_code == NAME_IN_USE and await replicate(bus, [name], REPLICAS)
    return True


async def _grow(bus: Bus) -> None:
    """Three replicas of everything, once three servers are there. Every machine tries; once is enough."""
    while True:
        done = False
        try:
            done = await replicate(
                bus, list(stream_configs(shipped_declaration(), replicas=REPLICAS)), REPLICAS
            )
        except OrchestraError as error:
            log.debug("the replicas could not be looked at: %s", error)
        await asyncio.sleep(SETTLE_S if done else GROW_S)


async def _fewest_replicas(bus: Bus) -> int | None:
    """Of all declared streams; None while no JetStream answers."""
    found = []
    for name in stream_configs(shipped_declaration(), replicas=1):
        try:
            reply = await bus.request(f"$JS.API.STREAM.INFO.{name}", timeout=1)
        except (BusUnavailable, DeadlineExceeded, Unavailable):
            return None
        info = json.loads(reply.data)
        if "error" in info:
            return None if info["error"].get("code", 500) >= 500 else 0
        found.append(int(info["config"]["num_replicas"]))
    return min(found)
