"""Finds the NATS server of the cluster."""

from __future__ import annotations

from actors.config.client import ClientSettings
from actors.nats_server.lock import find_running
from orchestration.errors import BusUnavailable


def nats_url_of(settings: ClientSettings) -> str:
    """The URL in the settings, else that of the running `orchestra up`. Raises `BusUnavailable`."""
    if settings.nats.url:
        return settings.nats.url
    facts = find_running(settings.folder)
    if not facts or not facts.get("url"):
        raise BusUnavailable(
            f"no cluster found: no `orchestra up` uses {settings.folder}. "
            "Start one with `orchestra up`, or name a NATS server with --nats nats://HOST:PORT"
        )
    return str(facts["url"])
