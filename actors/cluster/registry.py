"""The live nodes: a local copy of the bucket `nodes`, kept up to date, so that requests need no lookup."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from actors.bus.bus import Bus, Subscription
from actors.bus.key_value import Bucket
from actors.bus.provision import consumer_names
from actors.bus.subjects import GenerationQueue
from actors.cluster.failure_detector import FailureDetector
from orchestration.errors import OrchestraError
from orchestration.messages import ModelCard, NodeInfo

log = logging.getLogger(__name__)

BUCKET = "nodes"
LEASE_S = 8.0
"""The bucket's TTL in seconds: an entry that is not renewed for this long is deleted (declared in
`nats/streams.yaml`)."""
HEARTBEAT_S = 2.0
SWEEP_S = 0.5
KNOWN_MODELS = 10_000
"""Maximum number of model names that are remembered, to tell "no node now" from "no such model"."""
Fallbacks = Mapping[str, Sequence[str]]
NO_FALLBACKS: Fallbacks = {}


class Registry:
    """An immutable view of the nodes that take work, replaced on each change.

    Read `nodes` and `cards`. Callbacks in `on_change` are called when nodes join, leave or report; those in
    `on_node` get the node's id and its report, or None when it takes no more work. `on_gone` is called with a
    node that has died or stopped. A draining node leaves `nodes` before that, and finishes its generations.

    `fallbacks` are the models that answer instead of a model that no node serves, best first.
    """

    def __init__(
        self,
        bus: Bus,
        fallbacks: Fallbacks = NO_FALLBACKS,
        *,
        lease_s: float = LEASE_S,
        sweep_s: float = SWEEP_S,
    ) -> None:
        self.bus = bus
        self.fallbacks = fallbacks
        self.nodes: dict[str, NodeInfo] = {}
        self.draining: dict[str, NodeInfo] = {}
        self.cards: dict[str, ModelCard] = {}
        """The models that are served now, by name."""
        self.on_change: list[Callable[[], None]] = []
        self.on_node: list[Callable[[str, NodeInfo | None], None]] = []
        self.on_gone: list[Callable[[str], None]] = []
        self.known: dict[str, ModelCard | None] = {}
        """All models that were ever served; None for those that this process has not seen itself."""
        self._left_at: dict[str, float] = {}
        self._serving: dict[str, dict[str, NodeInfo]] = {}
        self._detector = FailureDetector(bus, lease_s)
        self._sweep_s = sweep_s
        self._subscription: Subscription | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._load_known_models()
        self._subscription = await Bucket(self.bus, BUCKET).watch(self._entry_changed)
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        self._detector.start()

    async def stop(self) -> None:
        self._detector.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def _load_known_models(self) -> None:
        """Remember the models that were served before this process started: their queues have a consumer for
        a day. They count as gone from now on."""
        try:
            names = await consumer_names(self.bus, GenerationQueue.STREAM, KNOWN_MODELS)
        except OrchestraError as error:
            log.warning("cannot read which models were served lately: %s", error.message)
            return
        for name in names:
            try:
                model = GenerationQueue.of_consumer(name).model
            except ValueError:
                log.debug("consumer %s does not belong to Orchestra", name)
                continue
            self.known[model] = None
            self._left_at[model] = time.monotonic()

    def card(self, model: str) -> ModelCard | None:
        """The card of the model that would answer for `model` now: itself, or its first served fallback."""
        for name in (model, *self.fallbacks.get(model, ())):
            if name in self.cards:
                return self.cards[name]
        return None

    def served_within(self, seconds: float, model: str | None = None) -> bool:
        """Whether `model`, or any model with None, is served now or was within the last `seconds`."""
        if model is None:
            return bool(self.cards) or any(self.served_within(seconds, each) for each in self._left_at)
        return model in self.cards or time.monotonic() - self._left_at.get(model, -math.inf) < seconds

    def serving(self, model: str) -> list[NodeInfo]:
        """Live nodes that serve `model` and are not draining."""
        return list(self._serving.get(model, {}).values())

    def _entry_changed(self, value: bytes | None, subject: str) -> None:
        key = subject.rsplit(".", 1)[-1]
        if value is None:
            self._remove(key)
            return
        try:
            info = NodeInfo.model_validate_json(value)
        except ValidationError as error:
            log.warning("the entry of a node under %s cannot be read: %s", subject, error)
            return
        self._detector.heartbeat(key)
        if info.draining:
            self._replace(key, None)
            self.draining = self.draining | {key: info}
        else:
            self.draining.pop(key, None)
            self._replace(key, info)
        self._notify()

    def _replace(self, key: str, info: NodeInfo | None) -> None:
        """Add or replace a node in the view, or remove it."""
        before = self.nodes.get(key)
        if info is not None:
            self.nodes = self.nodes | {key: info}
        elif before is not None:
            self.nodes = {other: node for other, node in self.nodes.items() if other != key}
        old = before.models if before is not None else ()
        new = info.models if info is not None else ()
        if old != new:
            for card in old:
                self._serving[card.name].pop(key, None)
                if not self._serving[card.name]:
                    del self._serving[card.name]
                    if card.name in self.known:
                        self._left_at[card.name] = time.monotonic()
            for card in new:
                if card.name in self.known or len(self.known) < KNOWN_MODELS:
                    self.known[card.name] = card
            self.cards = {card.name: card for node in self.nodes.values() for card in node.models}
        if info is not None:
            for card in new:
                self._serving.setdefault(card.name, {})[key] = info
        node_info = info or before
        if node_info is not None:
            for call in list(self.on_node):
                call(node_info.id, info)

    def _remove(self, key: str) -> None:
        self._detector.forget(key)
        node = self.nodes.get(key) or self.draining.get(key)
        if node is None:
            return
        self._replace(key, None)
        self.draining = {other: node for other, node in self.draining.items() if other != key}
        log.info("node %s left", node.id)
        for call in list(self.on_gone):
            call(node.id)
        self._notify()

    def _notify(self) -> None:
        for call in list(self.on_change):
            call()

    async def _server_stalled(self) -> bool:
        """Whether the server is slow to answer, so that renewals of nodes may still be on their way."""
        started_at = time.monotonic()
        try:
            await self.bus.flush()
        except OrchestraError:
            return True
        return time.monotonic() - started_at > self._sweep_s

    async def _sweep(self) -> None:
        """Remove nodes whose lease has expired: the bucket does not report that."""
        while True:
            await asyncio.sleep(self._sweep_s)
            if await self._server_stalled():
                self._detector.grant_grace()
            for key in self._detector.failed():
                log.warning("node %s has not renewed its lease for %g s", key, self._detector.timeout_s)
                self._remove(key)
