"""Ends generations that wait at this dispatcher when an operator purges their queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from actors.bus.bus import Bus
from actors.dispatcher.pulled_job import PulledJob
from actors.runtime.commands import CommandResponder
from orchestration.errors import CancelledByOperator
from orchestration.messages import Wire

END_WAITING = "generations.end"


class EndWaiting(Wire):
    """Ends the generations that wait for a node, were requested of `model`, and were stored up to the number
    `last`. A fallback model may be about to answer them."""

    model: str
    last: int
    error: str


class WaitingControl:
    """`end` ends one of the `jobs`, which waits, with an error."""

    def __init__(
        self,
        bus: Bus,
        jobs: Iterable[PulledJob],
        end: Callable[[PulledJob, CancelledByOperator], None],
    ) -> None:
        self._jobs = jobs
        self._end = end
        self._responder = CommandResponder(bus, "dispatcher")

    async def start(self) -> None:
        await self._responder.serve(END_WAITING, EndWaiting, self._end_waiting)

    async def stop(self) -> None:
        await self._responder.stop()

    def _end_waiting(self, wanted: EndWaiting) -> int:
        """The number of generations that were ended."""
        found = [
            job
            for job in self._jobs
            if job.waits and job.requested_model == wanted.model and job.delivery.sequence <= wanted.last
        ]
        for job in found:
            self._end(job, CancelledByOperator(wanted.error))
        return len(found)
