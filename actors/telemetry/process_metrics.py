"""Metrics of a process as a whole: who it is, the delay of its event loop, and what expires."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from prometheus_client import REGISTRY, Histogram, Info
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.telemetry.identity import ProcessIdentity

LAG_INTERVAL_S = 0.5
"""Time between two looks at the delay of the event loop."""

INFO = Info("orchestra", "Version, role, host and id of this process")
LOOP_LAG = Histogram(
    "orchestra_event_loop_lag_seconds",
    "Time in seconds by which a timer of the event loop came late",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


class LoopLag:
    """Measures the delay of the event loop twice a second, from `start` to `stop`."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + LAG_INTERVAL_S
        self._timer = loop.call_at(self._due, self._tick, loop)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        LOOP_LAG.observe(max(0.0, loop.time() - self._due))
        self._due = loop.time() + LAG_INTERVAL_S
        self._timer = loop.call_at(self._due, self._tick, loop)


class ExpiryTimes(Collector):
    """When certificates, keys and the like expire. Nothing is exported while nothing expires."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}

    def set(self, kind: str, at: float | None) -> None:
        """What `kind` names, such as `tls_certificate`, expires at the Unix time `at`; None: not any more. Of
        several of one kind pass the first to expire."""
        if at is None:
            self._times.pop(kind, None)
        else:
            self._times[kind] = at

    def collect(self) -> Iterable[Metric]:
        if not self._times:
            return
        left = GaugeMetricFamily(
            "orchestra_expiry_seconds",
            "Time in seconds until something expires, such as a certificate; negative: it has expired",
            labels=["kind"],
        )
        for kind, at in self._times.items():
            left.add_metric([kind], at - time.time())
        yield left

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are not known before."""
        return ()


expiry_times = ExpiryTimes()
REGISTRY.register(expiry_times)


def describe_process(identity: ProcessIdentity) -> None:
    """Export who this process is."""
    INFO.info(
        {"version": identity.version, "role": identity.role, "host": identity.host, "process": identity.id}
    )
