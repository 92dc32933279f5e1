from __future__ import annotations

from actors.bus.bus import Bus
from actors.bus.cancel_registry import CancelRegistry
from actors.bus.subjects import StreamAddress
from tests.fixtures.eventually import eventually


async def test_a_cancel_of_work_that_is_here_stops_it_and_is_not_remembered(bus: Bus) -> None:
    stopped: dict[str, int] = {}

    def cancel(work_id: str, at_ns: int) -> bool:
        stopped[work_id] = at_ns
        return True

    cancels = CancelRegistry(bus, cancel, limit=10)
    await cancels.start()
    await bus.publish(StreamAddress("cancels.here").cancel, b"1234567890123456789")
    await bus.publish(StreamAddress("cancels.sometime").cancel, b"rubbish")
    await eventually(lambda: len(stopped) == 2)
    assert stopped == {"cancels.here": 1234567890123456789, "cancels.sometime": 0}
    assert "cancels.here" not in cancels
    await cancels.stop()


async def test_the_newest_cancels_of_work_that_is_not_here_are_remembered_until_they_are_forgotten(
    bus: Bus,
) -> None:
    cancels = CancelRegistry(bus, lambda work_id, at_ns: not work_id.startswith("cancels."), limit=3)
    await cancels.start()
    for number in range(5):
        await bus.publish(StreamAddress(f"cancels.{number}").cancel)
    await eventually(lambda: "cancels.4" in cancels)
    assert [f"cancels.{number}" in cancels for number in range(5)] == [False, False, True, True, True]
    cancels.forget("cancels.3")
    cancels.forget("cancels.3")
    assert len(cancels.ids) == 2
    await cancels.stop()
