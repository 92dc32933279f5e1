"""Loads a backend's models on demand and evicts the least recently used when memory is needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from actors.backends.base import Backend
from actors.node.metrics import NodeMetrics, load_seconds, loads, starts, unloads
from orchestration.errors import BackendFailed, InvalidRequest, NodeBusy, UnknownModel
from orchestration.messages import MemoryUse, ModelCard
from orchestration.model_memory import Residency

log = logging.getLogger(__name__)

CLAIM_S = 2.0
"""How long the registry entry lists a model that was refused because memory was full."""
FAILED_S = 10.0
"""How long a failed load is not repeated, unless requested by name: it would evict others without use."""


class ModelManager:
    """The models of one node. `limit_bytes` limits the memory of loaded models (0: no limit). A load evicts
    the least recently used models on which nothing runs.

    `changed` is called when `cards` or `memory_use` change.
    """

    def __init__(self, node: str, backend: Backend, limit_bytes: int, changed: Callable[[], None]) -> None:
        self.node = node
        self.backend = backend
        self.limit_bytes = limit_bytes
        self._changed = changed
        self._cards: dict[str, ModelCard] = {}
        self._resident = Residency(0, {})
        self._metrics = NodeMetrics(node)
        self._active: Counter[str] = Counter()
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._unloading: set[str] = set()
        self._load_lock = asyncio.Lock()
        self._released = asyncio.Event()
        self._claims: dict[str, float] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._loads = self._unloads = self._swaps = 0
        self._pinned: set[str] = set()
        """Models that operators keep in memory."""
        self._preloaded: set[str] = set()
        """Models loaded in advance and not used since."""
        self._starts: Counter[str] = Counter()

    async def start(self) -> None:
        """Start the backend. Raises what its `start` raises."""
        limit = self.limit_bytes or self.backend.memory_bytes
        await self.backend.start(limit)
        self._cards = {card.name: card for card in self.backend.models}
        sizes = {name: card.memory_bytes for name, card in self._cards.items()}
        self._resident = Residency(limit, sizes)
        for name in self._cards:
            if name in self.backend.loaded:
                self._resident.use(name)
        self._publish()

    async def close(self) -> None:
        """Cancel loads in progress and close the backend."""
        for task in list(self._loading.values()):
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        await self.backend.close()

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """The models as the registry shows them."""
        return tuple(self._cards.values())

    @property
    def memory_use(self) -> MemoryUse:
        """The memory use for the registry; read every few seconds."""
        self._metrics.resident_bytes.set(self._resident.used_bytes + self.backend.cache_bytes)
        since = time.monotonic() - CLAIM_S
        self._claims = {model: at for model, at in self._claims.items() if at > since}
        return MemoryUse(
            limit_bytes=self._resident.limit_bytes,
            claims=tuple(self._claims),
            loads=self._loads,
            unloads=self._unloads,
            swaps=self._swaps,
            cold=self._starts["cold"],
            warmed=self._starts["warmed"],
            hits=self._starts["hit"],
        )

    def acquire(self, model: str) -> asyncio.Future[None] | None:
        """Keep `model` in memory until `release`. Returns a future to await first while it is being loaded.

        Raises `UnknownModel`, `NodeBusy` if the models in memory are all in use, and `BackendFailed` for a
        model that failed to load.
        """
        there = model in self._resident and model not in self._loading
        coming = self._acquire(model)
        outcome = "cold" if not there else "warmed" if model in self._preloaded else "hit"
        self._preloaded.discard(model)
        self._starts[outcome] += 1
        starts(self.node, model, outcome).inc()
        return coming

    def _acquire(self, model: str) -> asyncio.Future[None] | None:
        self._check(model)
        until, why = self._failed.get(model, (0.0, ""))
        if time.monotonic() < until:
            raise BackendFailed(f"node {self.node} could not load model {model!r}: {why}")
        if model in self._unloading:
            raise NodeBusy(f"node {self.node} is unloading model {model!r}", retry_after_s=0.5)
        if model not in self._resident:
            self._begin_load(model)
        elif len(self._cards) > 1:
            self._resident.use(model)
        self._active[model] += 1
        coming = self._loading.get(model)
        return None if coming is None else asyncio.shield(coming)

    def release(self, model: str) -> None:
        """End one use of `model` that `acquire` began."""
        self._active[model] -= 1
        if not self._active[model]:
            del self._active[model]
            self._released.set()

    async def load(self, model: str) -> bool:
        """Load `model`; False if it was in memory. Raises as `acquire` does, and what loading raises."""
        self._failed.pop(model, None)
        there = model in self._resident and model not in self._loading
        coming = self._acquire(model)
        try:
            if coming is not None:
                await coming
        finally:
            self.release(model)
        return not there

    async def load_ahead(self, model: str, leaving: Collection[str]) -> bool:
        """Load `model` in advance; False if it was in memory. Only the models `leaving` may be evicted.

        Raises as `load` does, and `NodeBusy` if these are in use or do not free enough memory.
        """
        self._check(model)
        if model in self._resident or model in self._unloading:
            return False
        if time.monotonic() < self._failed.get(model, (0.0, ""))[0]:
            raise NodeBusy(f"model {model!r} failed to load on node {self.node} less than {FAILED_S:g} s ago")
        self._begin_load(model, leaving)
        self._preloaded.add(model)
        await asyncio.shield(self._loading[model])
        return True

    async def pin(self, model: str) -> bool:
        """Load `model` and keep it in memory until `unpin`; False if it was pinned. Raises as `load` does."""
        self._check(model)
        if model in self._pinned:
            return False
        self._pinned.add(model)
        try:
            await self.load(model)
        except BaseException:
            self._pinned.discard(model)
            raise
        self._publish()
        return True

    def unpin(self, model: str) -> bool:
        """Let `model` be evicted again; False if it was not pinned."""
        self._check(model)
        if model not in self._pinned:
            return False
        self._pinned.discard(model)
        self._publish()
        return True

    def check_room(self, model: str, size: int) -> None:
        """Raises `InvalidRequest` if a model of `size` bytes does not fit into the memory of this node."""
        self._resident.check(model, size)

    async def add(self, folder: Path) -> ModelCard:
        """Offer the model in `folder` too, and load it if that needs no eviction. Raises what the backend's
        `add` and `load` raise, and `InvalidRequest` for a model larger than the memory."""
        card = await self.backend.add(folder)
        self._resident.add(card.name, card.memory_bytes)
        self._cards[card.name] = card.model_copy(update={"loaded": card.name in self.backend.loaded})
        self._changed()
        if self._resident.victims(card.name) == []:
            await self.load(card.name)
        return self._cards[card.name]

    async def unload(self, model: str) -> bool:
        """Unload `model` once nothing runs on it; until then it accepts no more generations. False if it was
        not in memory. Raises `InvalidRequest` for a pinned model."""
        self._check(model)
        if model in self._pinned:
            raise InvalidRequest(f"model {model!r} is pinned on node {self.node}: unpin it first")
        if model not in self._resident:
            return False
        self._unloading.add(model)
        try:
            while self._active[model] or model in self._loading:
                self._released.clear()
                await self._released.wait()
            async with self._load_lock:
                await self._unload(model)
        finally:
            self._unloading.discard(model)
        return True

    def _check(self, model: str) -> None:
        if model not in self._cards:
            raise UnknownModel.of(model, list(self._cards))

    def _begin_load(self, model: str, only: Collection[str] | None = None) -> None:
        """Begin to load `model`. From now on it counts as loaded, and what it evicts (`only` of these) as
        gone."""
        keep = {*self._active, *self._loading, *self._unloading, *self._pinned}
        if only is not None:
            keep.update(each for each in self._resident if each not in only)
        leaving = self._resident.victims(model, keep)
        if leaving is None:
            if only is None:
                if model not in self._claims:
                    self._changed()
                self._claims[model] = time.monotonic()
            raise NodeBusy(
                f"no memory for model {model!r} on node {self.node}: the loaded models are all in use"
                f"{' or pinned' if self._pinned else ''}",
                retry_after_s=0.5,
            )
        self._claims.pop(model, None)
        if leaving:
            self._swaps += 1
            self._metrics.swaps.inc()
        for each in leaving:
            self._resident.remove(each)
            self._preloaded.discard(each)
        self._resident.use(model)
        task = asyncio.get_running_loop().create_task(self._swap(leaving, model))
        self._loading[model] = task
        task.add_done_callback(self._load_done)

    def _load_done(self, task: asyncio.Task[None]) -> None:
        """End a load. Waiting callers get its error; the log gets it as well."""
        model = next(name for name, each in self._loading.items() if each is task)
        del self._loading[model]
        self._released.set()
        if task.cancelled() or task.exception() is not None:
            self._resident.remove(model)
            self._preloaded.discard(model)
            self._publish()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed[model] = time.monotonic() + FAILED_S, str(error)
            log.error("node %s could not load model %s: %s", self.node, model, error)

    async def _swap(self, leaving: list[str], model: str) -> None:
        async with self._load_lock:
            for each in leaving:
                await self._unload(each)
            began = time.perf_counter()
            await self.backend.load(model)
            seconds = time.perf_counter() - began
        self._loads += 1
        loads(self.node, model).inc()
        load_seconds(model).observe(seconds)
        log.info("node %s loaded model %s in %.2f s", self.node, model, seconds)
        self._cards[model] = self._cards[model].model_copy(update={"load_s": float(f"{seconds:.3g}")})
        self._publish()

    async def _unload(self, model: str) -> None:
        if model in self.backend.loaded:
            await self.backend.unload(model)
            self._unloads += 1
            unloads(self.node, model).inc()
            log.info("node %s unloaded model %s", self.node, model)
        if model not in self._loading:
            self._resident.remove(model)
            self._preloaded.discard(model)
        self._publish()

    def _publish(self) -> None:
        """Update the cards with what is loaded; a model counts as loaded once its load has ended."""
        there = self.backend.loaded
        for name, card in self._cards.items():
            state = {"loaded": name in there, "pinned": name in self._pinned}
            if (card.loaded, card.pinned) != (state["loaded"], state["pinned"]):
                self._cards[name] = card.model_copy(update=state)
        self._changed()
