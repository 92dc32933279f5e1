"""Reports new generations, of which the prewarmer's forecast learns."""

from __future__ import annotations

import asyncio
import logging

from actors.bus.bus import Bus
from actors.bus.subjects import ARRIVALS_SUBJECT
from actors.runtime.envelope import Envelope
from actors.telemetry.tracing import trace_id
from orchestration.errors import BusUnavailable
from orchestration.forecast import ModelCall
from orchestration.messages import Wire

log = logging.getLogger(__name__)

INTERVAL_S = 0.5
MAX_MODELS, MAX_STEPS = 200, 500
"""Limits of one report; what exceeds them is not counted."""


class ArrivalReport(Wire):
    """The number of new generations of each model, and those that are steps of runs, in order of arrival."""

    arrivals: dict[str, int]
    steps: tuple[ModelCall, ...] = ()


class ArrivalReporter:
    """Counts new generations, and publishes a report `INTERVAL_S` after the first one."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._arrivals: dict[str, int] = {}
        self._steps: list[ModelCall] = []
        self._timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def count(self, model: str, envelope: Envelope) -> None:
        """Count a generation that was pulled, or placed directly, for the first time."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._report)
        if model in self._arrivals or len(self._arrivals) < MAX_MODELS:
            self._arrivals[model] = self._arrivals.get(model, 0) + 1
        if envelope.pattern and len(self._steps) < MAX_STEPS and (run := trace_id(envelope.trace)):
            self._steps.append(ModelCall(run=run, pattern=envelope.pattern[:64], model=model))

    def _report(self) -> None:
        self._timer = None
        report = ArrivalReport(arrivals=self._arrivals, steps=tuple(self._steps))
        self._arrivals, self._steps = {}, []
        try:
            self.bus.post(ARRIVALS_SUBJECT, report.model_dump_json().encode())
        except BusUnavailable as error:
            log.debug("cannot publish the arrival report: %s", error)
