"""What a dispatcher tells of the generations it has pulled, for whoever forecasts."""

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
"""Of one telling; the rest is not counted."""


class ArrivalReport(Wire):
    """How many generations of each model came, and the calls of runs among them, in their order."""

    arrivals: dict[str, int]
    steps: tuple[ModelCall, ...] = ()


class ArrivalReporter:
    """Gathered here and told twice a second, however many come."""

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
        """One was pulled for the first time."""
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
                log.debug("nobody hears what was asked for: %s", error)
