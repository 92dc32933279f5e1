"""A stream writer that also keeps the answer, for the result of a job."""

from __future__ import annotations

from collections.abc import Callable

from actors.bus.bus import Bus
from actors.bus.subjects import StreamAddress
from actors.jobs.attempts import PartialAnswer
from actors.streams.writer import StreamWriter
from orchestration.messages import TextDelta


class AnswerRecorder(StreamWriter):
    """`partial` is the answer so far: text, reasoning and log probabilities."""

    def __init__(self, bus: Bus, address: StreamAddress, on_gone: Callable[[], object]) -> None:
        super().__init__(bus, address, on_gone)
        self.partial = PartialAnswer()

    async def write(self, delta: TextDelta) -> None:
        self.partial.add(delta)
        await super().write(delta)
