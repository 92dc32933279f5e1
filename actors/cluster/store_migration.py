"""Migrates the store of a single server into the cluster that it has joined.

nats-server cannot take a single server's streams into a cluster: it deletes them. So its store is moved aside
(`actors.nats_server.cluster`), opened again by a second server on loopback, and published message by message
to the cluster. A queued message is deleted from the old store once the cluster has acknowledged it, so that a
process that was killed in between continues where it was.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

from actors.bus.bus import Bus, Message
from actors.bus.jetstream import MESSAGE_ID_HEADER, WRONG_LAST_SEQUENCE
from actors.bus.key_value import EXPECTED, OPERATION
from actors.bus.provision import call_api
from actors.cluster.registry import BUCKET as NODES
from actors.nats_server import EmbeddedNats, NatsServerSettings
from actors.nats_server.cluster import standalone_folder
from orchestration.errors import BusUnavailable, DeadlineExceeded, InternalError, QueueFull, Unavailable

log = logging.getLogger(__name__)

LEASES = f"KV_{NODES}"
"""Not migrated: live nodes register themselves again."""
PAUSE_S = 0.5
PAGE = 256
"""Number of messages published concurrently."""


async def migrate_store(bus: Bus, server: EmbeddedNats) -> int:
    """Publish the store that was moved aside to the cluster behind `bus`; returns the number of messages.

    Queued work keeps its order and its headers; its deliveries are counted from 1 again. Of a bucket the
    latest value of each key is published, unless the cluster has the key; times to live start again. A
    message that the cluster has no room for is retried until it has. The emptied store stays as
    `standalone-migrated`.
    """
    aside = standalone_folder(server.files)
    if not aside.is_dir():
        return 0
    settings = NatsServerSettings(
        data=aside, sync=server.settings.sync, max_store_bytes=server.settings.max_store_bytes
    )
    count = 0
    async with EmbeddedNats(settings) as lone:
        old = await Bus.connect(
            bus.settings.model_copy(update={"url": lone.url}), name="orchestra-store-migration"
        )
        try:
            for name in (await call_api(old, "STREAM.NAMES")).get("streams") or []:
                if name.startswith("KV_") and name != LEASES:
                    count += await _migrate_bucket(old, bus, name)
                elif not name.startswith("KV_"):
                    count += await _migrate_queue(old, bus, name)
        finally:
            await old.close()
    aside.rename(_free_name(aside))
    log.warning("migrated %d messages of the single server to the cluster", count)
    return count


async def _migrate_queue(old: Bus, bus: Bus, stream: str) -> int:
    count, last = 0, 0
    while (message := await _get(old, stream, {"seq": last + 1, "next_by_subj": ">"})) is not None:
        last = int(message.header("Nats-Sequence"))
        await _put(bus, message, {MESSAGE_ID_HEADER: f"migrated-{stream}-{last}"})
        await call_api(old, f"STREAM.MSG.DELETE.{stream}", {"seq": last, "no_erase": True})
        count += 1
    return count


async def _migrate_bucket(old: Bus, bus: Bus, stream: str) -> int:
    """Publish the keys with their last values, `PAGE` concurrently; harmless to repeat."""
    info = await call_api(old, f"STREAM.INFO.{stream}", {"subjects_filter": ">"})
    subjects = list(info["state"].get("subjects") or {})
    for start in range(0, len(subjects), PAGE):
        async with asyncio.TaskGroup() as group:
            for subject in subjects[start : start + PAGE]:
                group.create_task(_migrate_key(old, bus, stream, subject))
    return len(subjects)


async def _migrate_key(old: Bus, bus: Bus, stream: str, subject: str) -> None:
    message = await _get(old, stream, {"last_by_subj": subject})
    if message is not None and not message.header(OPERATION):
        await _put(bus, message, {EXPECTED: "0"})


async def _get(old: Bus, stream: str, which: dict[str, object]) -> Message | None:
    reply = await old.request(f"$JS.API.DIRECT.GET.{stream}", json.dumps(which).encode())
    return None if reply.status == "404" else reply


async def _put(bus: Bus, message: Message, headers: dict[str, str]) -> None:
    """Publish a message until the cluster has it."""
    subject = message.header("Nats-Subject")
    own_headers = {
        name: value for name, value in (message.headers or {}).items() if not name.startswith("Nats-")
    }
    warned = False
    while True:
        try:
            reply = await bus.request(subject, message.data, headers=own_headers | headers)
            problem = json.loads(reply.data).get("error")
            if problem is None or problem.get("err_code") in WRONG_LAST_SEQUENCE:
                return
            reason = str(problem.get("description", problem))
        except (BusUnavailable, Unavailable, DeadlineExceeded, QueueFull, InternalError) as error:
            reason = error.message
        if not warned:
            warned = True
            log.warning("a message of %s cannot be migrated yet: %s", subject, reason)
        await asyncio.sleep(PAUSE_S)


def _free_name(aside: Path) -> Path:
    names = (aside.with_name(f"standalone-migrated{number or ''}") for number in range(1000))
    return next(path for path in names if not path.exists())
