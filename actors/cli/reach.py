"""Where the cluster is: what was said, else the `orchestra up` of this machine."""

from __future__ import annotations

from actors.config.client import ClientSettings
from actors.nats_server.lock import find_running
from orchestration.errors import BusUnavailable


def nats_url_of(settings: ClientSettings) -> str:
    """Raises `BusUnavailable` saying how to name or start a cluster."""
    if settings.nats.url:
        return settings.nats.url
    facts = find_running(settings.folder)
    if not facts or not facts.get("url"):
        raise BusUnavailable(
            f"no cluster here: no `orchestra up` holds {settings.folder}. "
            "Start one with `orchestra up`, or name a NATS server with --nats nats://HOST:PORT"
        )
    return str(facts["url"])
