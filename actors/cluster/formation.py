"""Forms a cluster of machines: waits for a majority, grows to three replicas, or stays a plain peer."""

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
"""Two of three are a majority, so one may die. More replicas would slow every write and gain little."""
GROW_S = 5.0
"""Interval between attempts to grow."""
SETTLE_S = 60.0
"""Interval between checks of a grown cluster: a newer stream may have fewer replicas."""
ROUTES_S = 3.0
"""A new server learns of the cluster's streams within this time, or there are none."""
LEADER_S = 1.0
"""A cluster with a leader answers within this time; one without does not answer."""
JOINT_START_S = 6.0
"""When two machines are a majority, this is how long they wait for a third before they create streams."""
NAME_IN_USE = 10058
_POLL_S = 0.25


async def has_enough_replicas(settings: NatsServerSettings, bus_settings: BusSettings) -> bool:
    """Whether three other servers keep the streams already, so that this one should be a plain peer.

    False for a server that kept streams before. It finds out by joining without a store for a moment.
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
    """Wait until the cluster can keep streams, migrate this machine's own store into it, and keep growing.

    Yields a function that waits for ever, and raises what ends the growing.
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
    """Declare the streams, with three replicas when three servers come within `JOINT_START_S`.

    Changing a stream from one replica to three leaves it without a leader for up to 10 s.
    """
    loop = asyncio.get_running_loop()
    warned, until = False, 0.0
    while True:
        try:
            await bus.request("$JS.API.INFO", timeout=LEADER_S)
            until = until or loop.time() + JOINT_START_S
            room = await _is_room_for_replicas(bus)
            if room or loop.time() > until:
                drifts = await apply(bus, shipped_declaration(), replicas=REPLICAS if room else 1)
                if not any(drift.refusal for drift in drifts):
                    return
                reason = next(drift.refusal for drift in drifts if drift.refusal)
            else:
                reason = "two of three are connected"
        except (Unavailable, DeadlineExceeded) as error:
            reason = error.message
        if not warned:
            warned = True
            log.warning(
                "waiting for the other machines of the cluster, %s (%s): streams need a majority of the "
                "servers that keep them",
                ", ".join(server.settings.join),
                reason,
            )
        await asyncio.sleep(_POLL_S)


async def _is_room_for_replicas(bus: Bus) -> bool:
    """Whether there are enough servers: creates the first declared stream with all replicas, or changes
    it."""
    name, config = next(iter(stream_configs(shipped_declaration(), replicas=REPLICAS).items()))
    try:
        await call_api(bus, f"STREAM.CREATE.{name}", config)
    except JetStreamError as error:
        return error.err_code == NAME_IN_USE and await replicate(bus, [name], REPLICAS)
    return True


async def _grow(bus: Bus) -> None:
    """Give every stream three replicas once there are three servers. Every machine tries; one is enough."""
    while True:
        done = False
        try:
            done = await replicate(
                bus, list(stream_configs(shipped_declaration(), replicas=REPLICAS)), REPLICAS
            )
        except OrchestraError as error:
            log.debug("cannot read the number of replicas: %s", error)
        await asyncio.sleep(SETTLE_S if done else GROW_S)


async def _fewest_replicas(bus: Bus) -> int | None:
    """The smallest number of replicas of a declared stream; None while no JetStream answers."""
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
