"""Who is alive: a local copy of the `nodes` bucket, watched, so that nobody asks on the hot path."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from pydantic import ValidationError

from actors.runtime.bus import Bus, Subscription
from actors.runtime.kv import Bucket
from orchestration.messages import ModelCard, NodeInfo

log = logging.getLogger(__name__)

BUCKET = "nodes"
LEASE_S = 8.0
"""The bucket's TTL: an entry not renewed for this long is gone (`nats/streams.yaml` declares it)."""
HEARTBEAT_S = 2.0
KNOWN_MODELS = 10_000
"""Names remembered after their last node left, to tell "no node now" from "no such model"."""


class Registry:
    """An immutable view of the nodes alive, replaced on every change.

    Read `nodes` and `cards`; add a callback to `on_change` to hear of joins, leaves and loads.
    """

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.nodes: dict[str, NodeInfo] = {}
        self.on_change: list[Callable[[], None]] = []
        self.on_gone: list[Callable[[str], None]] = []
        self.known: dict[str, ModelCard] = {}
        self._seen: dict[str, float] = {}
        self._subscription: Subscription | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._subscription = await Bucket(self.bus, BUCKET).watch(self._changed)
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())
        self.bus.on_reconnect.append(self._reconnected)

    async def stop(self) -> None:
        if self._reconnected in self.bus.on_reconnect:
            self.bus.on_reconnect.remove(self._reconnected)
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def serving(self, model: str) -> list[NodeInfo]:
        """Live nodes that serve `model` and are not draining."""
        return [node for node in self.nodes.values() if not node.draining and node.serves(model)]

    @property
    def cards(self) -> dict[str, ModelCard]:
        """Models that can be asked for now, by name."""
        return {card.name: card for node in self.nodes.values() if not node.draining for card in node.models}

    def _changed(self, value: bytes | None, subject: str) -> None:
        key = subject.rsplit(".", 1)[-1]
        if value is None:
            self._forget(key)
            return
        try:
            info = NodeInfo.model_validate_json(value)
        except ValidationError as error:
            log.warning("a node's entry under %s cannot be read: %s", subject, error)
            return
        self._seen[key] = time.monotonic()
        self.nodes = self.nodes | {key: info}
        for card in info.models:
            if card.name in self.known or len(self.known) < KNOWN_MODELS:
                self.known[card.name] = card
        self._tell()

    def _forget(self, key: str) -> None:
        self._seen.pop(key, None)
        gone = self.nodes.get(key)
        if gone is None:
            return
        self.nodes = {other: info for other, info in self.nodes.items() if other != key}
        log.info("node %s left", gone.id)
        for call in self.on_gone:
            call(gone.id)
        self._tell()

    def _tell(self) -> None:
        for call in self.on_change:
            call()

    def _reconnected(self) -> None:
        """Grace for all: while NATS was away no heartbeat could come."""
        now = time.monotonic()
        self._seen = dict.fromkeys(self._seen, now)

    async def _sweep(self) -> None:
        """Drop who has not been heard of for a lease; an expiry in the bucket is silent."""
        while True:
            await asyncio.sleep(0.5)
            if not self.bus.connected:
                continue
            late = time.monotonic() - LEASE_S
            for key in [key for key, seen in self._seen.items() if seen < late]:
                log.warning("node %s has not renewed its lease for %.0f s", key, LEASE_S)
                self._forget(key)
