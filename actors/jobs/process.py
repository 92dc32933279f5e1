"""Runs the sender of webhooks as a role of a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.bus.bus import Bus
from actors.jobs.settings import JobsSettings
from actors.jobs.webhooks import WebhookSender
from actors.runtime.system import ActorSystem


@asynccontextmanager
async def run_webhooks(bus: Bus, settings: JobsSettings, system: ActorSystem) -> AsyncIterator[None]:
    """Call webhooks until the block ends, then finish the calls that have begun, within `timeout_s`."""
    made: list[WebhookSender] = []

    def make() -> WebhookSender:
        made[:] = [WebhookSender(bus, settings.webhook)]
        return made[0]

    ref = await system.spawn(WebhookSender, make, name="webhooks")
    try:
        yield
    finally:
        await made[0].leave()
        await ref.host.drain(settings.webhook.timeout_s)
