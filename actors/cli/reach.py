"""Reaches the cluster that the options of a command name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from actors.bus.bus import Bus
from actors.cli.main import common, nats_option, overrides_of
from actors.config.client import ClientSettings, load_client
from actors.launch.process import connected, run
from actors.nats_server.lock import find_running
from orchestration.errors import BusUnavailable

T = TypeVar("T")


def reaching(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that reaches the cluster; `on_cluster` reads them."""
    return common(nats_option(command))


def on_cluster(options: Mapping[str, Any], name: str, work: Callable[[Bus], Awaitable[T]]) -> T:
    """What `work` returns on a connection to the cluster that the options name. NATS knows the connection
    as `name`. Raises `BusUnavailable`, and what `work` raises."""
    settings = load_client(
        overrides_of(data=options["data"], nats__url=options["nats_url"]), options["config_file"]
    )

    async def reach() -> T:
        async with connected(settings, nats_url_of(settings), name) as bus:
            return await work(bus)

    return run(reach())


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
