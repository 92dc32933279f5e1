"""Which of a backend's models are in memory: loaded when they are asked for, evicted when room is needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection

from actors.backends.base import Backend
from actors.node.metrics import LOAD_SECONDS, LOADS, RESIDENT, SWAPS, UNLOADS, starts
from orchestration.errors import BackendFailed, NodeBusy, UnknownModel
from orchestration.messages import MemoryUse, ModelCard
from orchestration.model_memory import Residency

log = logging.getLogger(__name__)

CLAIM_S = 2.0
"""A model refused for want of memory is told to the dispatchers for so long after the last refusal."""
FAILED_S = 10.0
"""What could not be loaded is not tried for so long, unless by name: others would leave for nothing."""


class ModelManager:
    """The models of one node. At most `limit_bytes` of them are in memory at once, 0 is no limit; what
    leaves for another is the one used longest ago of those on which nothing runs.

    `changed` is called whenever `cards` or `memory_use` say something new.
    """

    def __init__(self, node: str, backend: Backend, limit_bytes: int, changed: Callable[[], None]) -> None:
        self.node = node
        self.backend = backend
        self.limit_bytes = limit_bytes
        self._changed = changed
        self._cards: dict[str, ModelCard] = {}
        self._resident = Residency(0, {})
        self._active: Counter[str] = Counter()
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._unloading: set[str] = set()
        self._load_lock = asyncio.Lock()
        self._released = asyncio.Event()
        self._claims: dict[str, float] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._loads = self._unloads = self._swaps = 0
        self._preloaded: set[str] = set()
        """Those loaded ahead and not asked for since."""
        self._starts: Counter[str] = Counter()

    async def start(self) -> None:
        """Start the backend. Raises what that raises."""
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
        """Stop what is being loaded, and the backend."""
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
        """What the registry shows beside them; asked for every few seconds."""
        RESIDENT.labels(self.node).set(self._resident.used_bytes + self.backend.cache_bytes)
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
            raise NodeBusy(f"model {model!r} is being unloaded from node {self.node}", retry_after_s=0.5)
        if model not in self._resident:
            self._begin_load(model)
        elif len(self._cards) > 1:
            self._resident.use(model)
        self._active[model] += 1
        coming = self._loading.get(model)
        return None if coming is None else asyncio.shield(coming)

    def release(self, model: str) -> None:
        """One that `acquire` was called for is over."""
        self._active[model] -= 1
        if not self._active[model]:
            del self._active[model]
            self._released.set()

    async def load(self, model: str) -> bool:
        """Bring it in; False if it was there. Raises as `acquire` does, and what loading raises."""
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
        """Bring it in before anyone asks for it; False if it was there. Only those `leaving` make room.

        Raises as `load` does, `NodeBusy` also where they are in use or do not make enough room.
        """
        self._check(model)
        if model in self._resident or model in self._unloading:
            return False
        if time.monotonic() < self._failed.get(model, (0.0, ""))[0]:
            raise NodeBusy(f"model {model!r} failed to load on node {self.node} just now")
        self._begin_load(model, leaving)
        self._preloaded.add(model)
        await asyncio.shield(self._loading[model])
        return True

    async def unload(self, model: str) -> bool:
        """Free its memory once nothing runs on it, which takes no more generations until then; False if
        it was not there."""
        self._check(model)
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
        """Begin to load it. What leaves for it, `only` of these, counts as gone, and it as there, by now."""
        keep = {*self._active, *self._loading, *self._unloading}
        if only is not None:
            keep.update(each for each in self._resident if each not in only)
        leaving = self._resident.victims(model, keep)
        if leaving is None:
            if only is None:
                if model not in self._claims:
                    self._changed()
                self._claims[model] = time.monotonic()
            raise NodeBusy(
                f"model {model!r} does not fit beside what is at work in the memory of node {self.node}",
                retry_after_s=0.5,
            )
        self._claims.pop(model, None)
        if leaving:
            self._swaps += 1
            SWAPS.labels(self.node).inc()
        for each in leaving:
            self._resident.remove(each)
            self._preloaded.discard(each)
        self._resident.use(model)
        task = asyncio.get_running_loop().create_task(self._swap(leaving, model))
        self._loading[model] = task
        task.add_done_callback(self._load_done)

    def _load_done(self, task: asyncio.Task[None]) -> None:
        """Everyone who waits hears of an error; the log does where nobody waits any more."""
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
        LOADS.labels(self.node, model).inc()
        LOAD_SECONDS.labels(model).observe(seconds)
        log.info("node %s loaded model %s in %.2f s", self.node, model, seconds)
        self._cards[model] = self._cards[model].model_copy(update={"load_s": float(f"{seconds:.3g}")})
        self._publish()

    async def _unload(self, model: str) -> None:
        if model in self.backend.loaded:
            await self.backend.unload(model)
            self._unloads += 1
            UNLOADS.labels(self.node, model).inc()
            log.info("node %s unloaded model %s", self.node, model)
        if model not in self._loading:
            self._resident.remove(model)
            self._preloaded.discard(model)
        self._publish()

    def _publish(self) -> None:
        """Say what is loaded now; what is on its way counts as loaded when it is there."""
        there = self.backend.loaded
        for name, card in self._cards.items():
            if card.loaded != (name in there):
                self._cards[name] = card.model_copy(update={"loaded": name in there})
        self._changed()
