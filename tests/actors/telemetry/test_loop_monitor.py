"""An event loop that is behind with its work is noticed, and costs no timer while nobody asks."""

from __future__ import annotations

import time

from actors.telemetry.loop_monitor import LoopMonitor
from tests.fixtures.eventually import eventually


async def test_a_blocked_loop_is_behind_at_once_and_for_a_while_afterwards() -> None:
    monitor = LoopMonitor()
    monitor.begin()
    await eventually(lambda: not monitor.is_behind(time.monotonic()))
    until = time.monotonic() + 0.05
    while time.monotonic() < until:
        pass
    assert monitor.is_behind(time.monotonic())
    await eventually(lambda: not monitor.is_behind(time.monotonic()))
    monitor.end()


async def test_the_monitor_stops_with_its_last_user() -> None:
    monitor = LoopMonitor()
    for _ in range(2):
        monitor.begin()
    monitor.end()
    assert monitor._timer is not None
    monitor.end()
    await eventually(lambda: monitor._timer is None)
    assert not monitor.is_behind(time.monotonic() + 60)
