"""Loads models before they are requested. One dispatcher of the cluster, the leader, does this for all.

The holder of the lease receives the arrival reports of all dispatchers, keeps the forecast, and tells nodes
what to load. It stores what it has learned beside the lease, so that the next leader continues from there.
"""

from __future__ import annotations

import asyncio
import logging
import time

from pydantic import ValidationError

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.key_value import Bucket, Conflict, Lease
from actors.bus.subjects import ARRIVALS_SUBJECT, NodeAddress
from actors.cluster.registry import Registry
from actors.dispatcher.metrics import PREWARM_LEADER, loads_ahead
from actors.dispatcher.settings import WarmingSettings
from actors.placement.arrival_reporter import ArrivalReport
from actors.runtime.service import ERROR
from orchestration.errors import OrchestraError, from_body
from orchestration.forecast import Forecast, ForecastState
from orchestration.messages import ErrorBody, LoadModel, Wire
from orchestration.warming import WarmUp, plan

log = logging.getLogger(__name__)

LEASES, LEASE = "leases", "forecast"
FORECAST, STATE = "forecast", "state"
RENEW_S = 2.0
"""How often the lease is renewed, in seconds: a quarter of the bucket's TTL."""
PAUSE_S = 10.0
"""How long a node is not asked again for a model that it did not load, in seconds."""
LOAD_TIMEOUT_S = 300.0


class SavedForecast(Wire):
    """The stored forecast: its state and, for people, the arrivals expected of each model within
    `horizon_s`."""

    state: ForecastState
    holder: str
    horizon_s: float
    expected: dict[str, float]


class Prewarmer:
    """The prewarmer of the dispatcher `name`; it acts while it `is_leader`."""

    def __init__(self, bus: Bus, registry: Registry, name: str, settings: WarmingSettings) -> None:
        self.bus = bus
        self.registry = registry
        self.name = name
        self.settings = settings
        self.forecast = self._new_forecast()
        self.is_leader = False
        self._lease = Lease(Bucket(bus, LEASES), LEASE)
        self._bucket = Bucket(bus, FORECAST)
        self._subscription: Subscription | None = None
        self._loop: asyncio.Task[None] | None = None
        self._loads: dict[str, asyncio.Task[None]] = {}
        """The load in progress on each node."""
        self._not_before: dict[tuple[str, str], float] = {}
        self._step_event = asyncio.Event()
        self._saved_at = 0.0

    def _new_forecast(self) -> Forecast:
        return Forecast(half_life_s=self.settings.half_life_s)

    async def start(self) -> None:
        if self.settings.enabled:
            self._loop = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Store the forecast and release the lease."""
        if self._loop is None:
            return
        self._loop.cancel()
        await asyncio.wait([self._loop])
        for task in self._loads.values():
            task.cancel()
        if self.is_leader:
            try:
                await self._save()
                await self._lease.release()
            except OrchestraError as error:
                log.warning("up to %.0f s of the forecast are lost: %s", self.settings.save_s, error)
        await self._step_down()

    async def _run(self) -> None:
        decided_at = 0.0
        while True:
            try:
                await self._lease.hold(self.name.encode())
                if not self.is_leader:
                    await self._take_over()
            except OrchestraError as error:
                if not isinstance(error, Conflict):
                    log.debug("cannot take the lease of the forecast: %s", error)
                await self._step_down()
            renewed_at = time.monotonic()
            while (left := renewed_at + RENEW_S - time.monotonic()) > 0:
                if self.is_leader and (
                    self._step_event.is_set() or decided_at <= renewed_at - self.settings.interval_s
                ):
                    self._step_event.clear()
                    self._decide()
                    decided_at = time.monotonic()
                try:
                    async with asyncio.timeout(left):
                        await self._step_event.wait()
                except TimeoutError:
                    break
            if self.is_leader and time.monotonic() > self._saved_at + self.settings.save_s:
                await self._save_if_possible()

    async def _take_over(self) -> None:
        """Continue from the forecast of the previous leader."""
        entry = await self._bucket.get(STATE)
        self.forecast = self._new_forecast()
        if entry is not None and entry.value is not None:
            try:
                saved = SavedForecast.model_validate_json(entry.value)
            except ValidationError as error:
                log.warning("cannot read the stored forecast, learning starts again: %s", error)
            else:
                self.forecast = Forecast.restored(saved.state, half_life_s=self.settings.half_life_s)
        self._subscription = await self.bus.subscribe(ARRIVALS_SUBJECT, self._record_arrivals)
        self._saved_at = time.monotonic()
        self.is_leader = True
        PREWARM_LEADER.set(1)

    async def _step_down(self) -> None:
        self.is_leader = False
        self._step_event.clear()
        PREWARM_LEADER.set(0)
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.unsubscribe()

    def _record_arrivals(self, message: Message) -> None:
        try:
            report = ArrivalReport.model_validate_json(message.data)
        except ValidationError as error:
            log.warning("cannot read an arrival report: %s", error)
            return
        now = time.time()
        for model, count in report.arrivals.items():
            self.forecast.add_arrivals(model, now, count)
        for step in report.steps:
            self.forecast.add_call(step, now)
        if report.steps:
            self._step_event.set()

    def _decide(self) -> None:
        now = time.monotonic()
        self._not_before = {key: until for key, until in self._not_before.items() if until > now}
        nodes = [node for node in self.registry.nodes.values() if node.id not in self._loads]
        expected = self.forecast.expected(time.time(), self.settings.horizon_s)
        for warm_up in plan(nodes, expected, floor=self.settings.floor):
            if (warm_up.node, warm_up.model) not in self._not_before:
                task = asyncio.get_running_loop().create_task(self._load(warm_up))
                self._loads[warm_up.node] = task
                task.add_done_callback(self._remove_load)

    def _remove_load(self, task: asyncio.Task[None]) -> None:
        self._loads = {node: each for node, each in self._loads.items() if each is not task}

    async def _load(self, warm_up: WarmUp) -> None:
        message = LoadModel(model=warm_up.model, ahead=True, leaving=warm_up.leaving)
        self._not_before[warm_up.node, warm_up.model] = time.monotonic() + PAUSE_S
        outcome = "loaded"
        try:
            answer = await self.bus.request(
                NodeAddress(warm_up.node).load, message.model_dump_json().encode(), timeout=LOAD_TIMEOUT_S
            )
            if answer.header(ERROR):
                raise from_body(ErrorBody.model_validate_json(answer.data))
        except OrchestraError as error:
            outcome = error.code
            log.info("node %s did not load model %s ahead: %s", warm_up.node, warm_up.model, error.message)
        loads_ahead(warm_up.model, outcome).inc()

    async def _save_if_possible(self) -> None:
        try:
            await self._save()
        except OrchestraError as error:
            log.warning("cannot store the forecast: %s", error)

    async def _save(self) -> None:
        now = time.time()
        expected = self.forecast.expected(now, self.settings.horizon_s)
        saved = SavedForecast(
            state=self.forecast.state(now),
            holder=self.name,
            horizon_s=self.settings.horizon_s,
            expected={model: float(f"{count:.3g}") for model, count in expected.items()},
        )
        await self._bucket.put(STATE, saved.model_dump_json().encode())
        self._saved_at = time.monotonic()
