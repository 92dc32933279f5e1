"""Reports the generations that a dispatcher has pulled; the prewarmer's forecast learns from it."""

from __future__ import annotations

import asyncio
import logging

from actors.bus.bus import Bus
from actors.runtime.envelope import Envelope
from actors.telemetry.telemetry import trace_id
from orchestration.errors import BusUnavailable
from orchestration.forecast import ModelCall
from orchestration.messages import Wire

log = logging.getLogger(__name__)

ARRIVALS = "forecast.arrivals"
INTERVAL_S = 0.5
MAX_MODELS, MAX_STEPS = 200, 500
"""Limits of one report; what exceeds them is not counted."""


class ArrivalReport(Wire):
    """The number of new generations of each model, and those that are steps of runs, in order of arrival."""

    arrivals: dict[str, int]
    steps: tuple[ModelCall, ...] = ()


class ArrivalReporter:
    """Counts new generations, and publishes a report every `INTERVAL_S`."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._arrivals: dict[str, int] = {}
        self._steps: list[ModelCall] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def count(self, model: str, envelope: Envelope) -> None:
        """Count a generation that was pulled for the first time."""
        if model in self._arrivals or len(self._arrivals) < MAX_MODELS:
            self._arrivals[model] = self._arrivals.get(model, 0) + 1
        if envelope.pattern and len(self._steps) < MAX_STEPS and (run := trace_id(envelope.trace)):
            self._steps.append(ModelCall(run=run, pattern=envelope.pattern[:64], model=model))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            if not self._arrivals:
                continue
            report = ArrivalReport(arrivals=self._arrivals, steps=tuple(self._steps))
            self._arrivals, self._steps = {}, []
            try:
                self.bus.post(ARRIVALS, report.model_dump_json().encode())
            except BusUnavailable as error:
                log.debug("cannot publish the arrival report: %s", error)
