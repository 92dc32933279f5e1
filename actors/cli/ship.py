"""`orchestra logs ship`: the role that writes events to MongoDB."""

from __future__ import annotations

from contextlib import AsyncExitStack

import click

from actors.bus.bus import Bus
from actors.cli.roles import Watch, role
from actors.config.hot_settings import HotSettings
from actors.logs.process import run_shipper
from actors.runtime.system import ActorSystem
from actors.settings import Settings
from actors.telemetry.event_log import event_log


@role(
    click.option(
        "--mongodb",
        "logs__mongodb__url",
        metavar="URL",
        help="Address of MongoDB, such as mongodb://HOST:27017/. [default: logs.mongodb.url]",
    ),
    role_name="logs",
)
async def ship(
    hot: HotSettings[Settings], stack: AsyncExitStack, bus: Bus, system: ActorSystem
) -> tuple[str, list[Watch]]:
    """Write the events of the cluster to MongoDB. Any number of processes share the work."""
    await stack.enter_async_context(run_shipper(bus, hot.settings.logs, event_log.identity))
    return f"log shipper writes to the database {hot.settings.logs.mongodb.database}", []
