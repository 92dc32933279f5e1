"""A full disk under JetStream: said in the log while it lasts, and mended once there is room again.

nats-server 2.15.1 acknowledges nothing more on a stream after the first write that found no space, and does
not begin again when space is back: it has to be started anew (tried; nothing that was acknowledged is lost).
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
"""With less, a write may have failed: a message of the largest size takes more. Twice that is room again."""


def free_bytes(files: ServerFiles) -> int:
    """Room for this user on the disk of the data folder."""
    found = os.statvfs(files.root)
    return found.f_bavail * found.f_frsize


async def watch_disk(files: ServerFiles, restart: Callable[[], None], tell: Callable[[str], None]) -> None:
    """Call `tell` with what is wrong while the disk is full, with '' when it has room again, and `restart`
    then. Never returns."""
    full = False
    while True:
        free = free_bytes(files)
        if free < ROOM_BYTES and not full:
            full = True
            tell(f"the disk of the data folder {files.root} is full ({free // 1024} KB left)")
            log.error(
                "the disk of the data folder %s is full (%d KB left): queues refuse work until there is room",
                files.root,
                free // 1024,
            )
        elif full and free >= 2 * ROOM_BYTES:
            full = False
            tell("")
            log.warning("the disk of %s has room again: starting nats-server anew", files.root)
            restart()
        await asyncio.sleep(POLL_S)
