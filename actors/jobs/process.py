"""Runs the sender of webhooks as a role of a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.bus.bus import Bus
from actors.jobs.settings import JobsSettings
from actors.jobs.webhooks import WebhookSender
from actors.runtime.system import ActorSystem


class RunningWebhooks:
    """The sender of webhooks of a process, which is another one after a crash."""

    def __init__(self, bus: Bus, settings: JobsSettings) -> None:
        self.bus = bus
        self.settings = settings
        self.sender: WebhookSender

    def make(self) -> WebhookSender:
        """A sender with the settings of now."""
        self.sender = WebhookSender(self.bus, self.settings.webhook)
        return self.sender

    def update_settings(self, settings: JobsSettings) -> None:
        """Use other settings for calls from now on."""
        self.settings = settings
        self.sender.settings = settings.webhook


@asynccontextmanager
async def run_webhooks(
    bus: Bus, settings: JobsSettings, system: ActorSystem
) -> AsyncIterator[RunningWebhooks]:
    """Call webhooks until the block ends, then finish the calls that have begun, within `timeout_s`."""
    running = RunningWebhooks(bus, settings)
    ref = await system.spawn(WebhookSender, running.make, name="webhooks")
    try:
        yield running
    finally:
        await running.sender.leave()
        await ref.host.drain(settings.webhook.timeout_s)
