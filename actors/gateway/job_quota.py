"""What jobs were charged when they were submitted, until it is known what they took."""

from __future__ import annotations

import logging
from collections import OrderedDict

from pydantic_core import from_json

from actors.bus.bus import Bus, Message, Subscription
from actors.gateway.token_reservation import TokenReservation
from actors.jobs.records import JobStatus, event_subject
from actors.jobs.store import JobStore
from orchestration.errors import OrchestraError

log = logging.getLogger(__name__)

REMEMBERED = 20_000
"""Jobs whose end is waited for; of those before them what they were charged stays so."""


class JobQuota:
    """The gateway that took a job gives back what it did not take, when it hears of the job's end. If that
    gateway is gone by then, or does not hear of it, the job has cost what it might have taken."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.store = JobStore(bus)
        self._meters: OrderedDict[str, TokenReservation] = OrderedDict()
        """By the subject of the job's events."""
        self._events: Subscription | None = None

    async def hold(self, job_id: str, meter: TokenReservation) -> None:
        """Settle `meter` once that job has ended. The first one begins to listen."""
        if not meter.limited:
            return
        if self._events is None:
            self._events = await self.bus.subscribe(event_subject("job.*"), self._changed)
        self._meters.setdefault(event_subject(job_id), meter)
        if len(self._meters) > REMEMBERED:
            self._meters.popitem(last=False)

    def drop(self, job_id: str, meter: TokenReservation) -> None:
        """The job costs nothing: it was refused, or an earlier one has its key."""
        if self._meters.get(event_subject(job_id)) is meter:
            del self._meters[event_subject(job_id)]
        meter.settle()

    async def stop(self) -> None:
        if self._events is not None:
            await self._events.unsubscribe()

    async def _changed(self, message: Message) -> None:
        if message.subject not in self._meters:
            return
        job = from_json(message.data)
        if not JobStatus(job["status"]).final:
            return
        meter = self._meters.pop(message.subject)
        try:
            result = await self.store.result(job["id"], job["retries"])
        except OrchestraError as error:
            log.warning("what %s took is not known: %s", job["id"], error)
            return
        if result is not None:
            meter.observe(result.ended)
        meter.settle()
