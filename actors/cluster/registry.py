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
from actors.bus.provision import call_api
from actors.bus.subjects import decode_token
from actors.cluster.failure_detector import FailureDetector
from actors.cluster.metrics import registered_nodes
from actors.cluster.orders import OrderBook
from actors.telemetry.event_log import RECORDED, event_log
from actors.telemetry.labels import MODELS as MODEL_LABELS
from orchestration.errors import OrchestraError
from orchestration.log_events import LogLevel
from orchestration.messages import ModelCard, NodeInfo

log = logging.getLogger(__name__)

BUCKET = "nodes"
MODELS = "models"
"""The bucket with a key for each model that was served within a day."""
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

    Read `nodes` and `cards`. Callbacks in `on_change` are called when nodes join, leave or report a change;
    those in `on_node` get the node's id and its report, or None when it takes no more work. A node that only
    renews its lease has `on_node` called with the same object again. `on_gone` is called with a node that has
    died or stopped. A draining node leaves `nodes` before that, and finishes its generations.

    `fallbacks` are the models that answer instead of a model that no node serves, best first. Roles of one
    process may share a registry: each calls `start` and `stop`.
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
        self.orders = OrderBook(bus)
        """The standing orders of operators, for the roles that share the registry."""
        self.fallbacks = fallbacks
        self.draining: dict[str, NodeInfo] = {}
        self.cards: dict[str, ModelCard] = {}
        """The models that are served now, by name."""
        self.on_change: list[Callable[[], None]] = []
        self.on_node: list[Callable[[str, NodeInfo | None], None]] = []
        self.on_gone: list[Callable[[str], None]] = []
        self.known: dict[str, ModelCard | None] = {}
        """All models that were ever served; None for those that this process has not seen itself."""
        self._left_at: dict[str, float] = {}
        self._nodes: dict[str, NodeInfo] = {}
        self._view: dict[str, NodeInfo] | None = {}
        """The last view of `_nodes` that was read; None after a change."""
        self._entries: dict[str, bytes] = {}
        """The last entry of each node: most that come only renew its lease."""
        self._serving: dict[str, dict[str, NodeInfo]] = {}
        self._detector = FailureDetector(bus, lease_s)
        self._sweep_s = sweep_s
        self._subscription: Subscription | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._users = 0

    @property
    def nodes(self) -> dict[str, NodeInfo]:
        """The nodes that take work, by key. Copied when it is read after a change: most changes come
        unread in a large cluster."""
        if self._view is None:
            self._view = self._nodes.copy()
        return self._view

    async def start(self) -> None:
        """Returns once the present nodes are known. Calls come one after another."""
        self._users += 1
        if self._users > 1:
            return
        await self._load_known_models()
        await self.orders.start()
        self._subscription = await Bucket(self.bus, BUCKET).watch(self._entry_changed)
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        self._detector.start()
        registered_nodes.registries.append(self)

    async def stop(self) -> None:
        """Follow no more nodes, once each `start` has had its `stop`."""
        self._users = max(0, self._users - 1)
        if self._users:
            return
        self._detector.stop()
        await self.orders.stop()
        if self in registered_nodes.registries:
            registered_nodes.registries.remove(self)
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def _load_known_models(self) -> None:
        """Remember the models that were served within a day before this process started. They count as gone
        from now on."""
        subjects = {"subjects_filter": f"$KV.{MODELS}.>"}
        try:
            info = await call_api(self.bus, f"STREAM.INFO.KV_{MODELS}", subjects)
        except OrchestraError as error:
            log.warning("cannot read which models were served lately: %s", error.message)
            return
        for subject in list(info["state"].get("subjects") or ())[:KNOWN_MODELS]:
            try:
                model = decode_token(subject.rsplit(".", 1)[-1])
            except ValueError:
                log.debug("the entry %s does not belong to Orchestra", subject)
                continue
            self.known[model] = None
            MODEL_LABELS.of(model)
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
        if value == self._entries.get(key):
            self._renewed(key)
            return
        try:
            info = NodeInfo.model_validate_json(value)
        except ValidationError as error:
            log.warning("the entry of a node under %s cannot be read: %s", subject, error)
            return
        self._entries[key] = value
        self._detector.heartbeat(key)
        if info.draining:
            self._replace(key, None)
            self.draining = self.draining | {key: info}
        else:
            self.draining.pop(key, None)
            self._replace(key, info)
        self._notify()

    def _renewed(self, key: str) -> None:
        """The node has renewed its lease and nothing else."""
        self._detector.heartbeat(key)
        info = self._nodes.get(key)
        if info is not None:
            for call in list(self.on_node):
                call(info.id, info)

    def _replace(self, key: str, info: NodeInfo | None) -> None:
        """Add or replace a node in the view, or remove it."""
        before = self._nodes.pop(key, None) if info is None else self._nodes.get(key)
        if info is not None:
            self._nodes[key] = info
        self._view = None
        old = before.models if before is not None else ()
        new = info.models if info is not None else ()
        if info is not None:
            for card in new:
                self._serving.setdefault(card.name, {})[key] = info
        if old != new:
            self._replace_models(key, old, new)
        node_info = info or before
        if node_info is not None:
            for call in list(self.on_node):
                call(node_info.id, info)

    def _replace_models(self, key: str, old: Sequence[ModelCard], new: Sequence[ModelCard]) -> None:
        """Bring `cards` up to date with what one node serves. The cost does not depend on other nodes."""
        cards = self.cards | {card.name: card for card in new}
        for name in {card.name for card in old} - {card.name for card in new}:
            others = self._serving[name]
            others.pop(key, None)
            if others:
                other = next(iter(others.values()))
                cards[name] = next(card for card in other.models if card.name == name)
                continue
            del self._serving[name], cards[name]
            if name in self.known:
                self._left_at[name] = time.monotonic()
        for card in new:
            MODEL_LABELS.of(card.name)
            if card.name in self.known or len(self.known) < KNOWN_MODELS:
                self.known[card.name] = card
        self.cards = cards

    def _remove(self, key: str) -> None:
        self._detector.forget(key)
        self._entries.pop(key, None)
        node = self._nodes.get(key) or self.draining.get(key)
        if node is None:
            return
        self._replace(key, None)
        self.draining = {other: node for other, node in self.draining.items() if other != key}
        log.info("node %s left", node.id)
        for call in list(self.on_gone):
            call(node.id)
        self._notify()

    def _record_loss(self, key: str) -> None:
        """Record that a node's lease has expired. Every process with a registry does; it is one fact."""
        seconds = self._detector.timeout_s
        log.warning("node %s has not renewed its lease for %g s", key, seconds, extra=RECORDED)
        node = self._nodes.get(key) or self.draining.get(key)
        if node is not None:
            event_log.record(
                "node.lost",
                event_id=f"node.lost/{node.id}/{node.started_at:.3f}",
                level=LogLevel.ERROR,
                node=node.id,
                message=f"node {node.id} is lost: its lease was not renewed for {seconds:g} s",
                data={"backend": node.backend, "models": [card.name for card in node.models][:20]},
            )

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
            if self._detector.overdue and await self._server_stalled():
                self._detector.grant_grace()
            for key in self._detector.failed():
                self._record_loss(key)
                self._remove(key)


async def live_nodes(bus: Bus) -> list[NodeInfo]:
    """All nodes in the registry, by id. An entry that this version cannot read is left out."""
    nodes: list[NodeInfo] = []

    def on_entry(value: bytes | None, _: str) -> None:
        if value is not None:
            try:
                nodes.append(NodeInfo.model_validate_json(value))
            except ValidationError:
                return

    await Bucket(bus, BUCKET).replay(on_entry)
    return sorted(nodes, key=lambda node: node.id)
