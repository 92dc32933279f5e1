"""Watches for a full disk under JetStream: logs it, and restarts nats-server when there is room again.

nats-server 2.15.1 acknowledges nothing on a stream after the first write that found no space, also when space
is back, until it is restarted (tested; no acknowledged message is lost).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from actors.nats_server.files import ServerFiles

log = logging.getLogger(__name__)

POLL_S = 1.0
ROOM_BYTES = 4 * 2**20
"""The disk counts as full below this many free bytes, because a message of the largest size needs more. It
has room again above twice this number."""


def free_bytes(files: ServerFiles) -> int:
    """Free bytes for this user on the disk of the data folder."""
    found = os.statvfs(files.root)
    return found.f_bavail * found.f_frsize


async def watch_disk(files: ServerFiles, restart: Callable[[], None], report: Callable[[str], None]) -> None:
    """Call `report` with the problem when the disk becomes full, and with '' when it has room again; then
    call `restart` too. Never returns."""
    full = False
    while True:
        free = free_bytes(files)
        if free < ROOM_BYTES and not full:
            full = True
            report(f"the disk of the data folder {files.root} is full ({free // 1024} KB left)")
            log.error(
                "the disk of the data folder %s is full (%d KB left): queues refuse work until there is room",
                files.root,
                free // 1024,
            )
        elif full and free >= 2 * ROOM_BYTES:
            full = False
            report("")
            log.warning("the disk of %s has room again: restarting nats-server", files.root)
            restart()
        await asyncio.sleep(POLL_S)
