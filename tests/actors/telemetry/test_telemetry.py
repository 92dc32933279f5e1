from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from actors.runtime.system import ActorSystem
from orchestration.errors import InternalError
from tests.actors.runtime.greeter import Crash, Greet, Greeter
from tests.fixtures.ask import ask


async def test_every_message_is_counted_by_its_outcome() -> None:
    class Counted(Greeter):
        """Its name is its label."""

    def count(message: str, outcome: str) -> float:
        labels = {"actor": "Counted", "message": message, "outcome": outcome}
        return REGISTRY.get_sample_value("orchestra_actor_messages_total", labels) or 0

    ref = await ActorSystem().spawn(Counted, Counted)
    for _ in range(3):
        await ask(ref, Greet(name="x"))
    with pytest.raises(InternalError):
        await ask(ref, Crash())
    assert (count("Greet", "ok"), count("Crash", "internal_error")) == (3, 1)
