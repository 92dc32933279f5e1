"""Tokens reserved for jobs: reserved at the submission, settled when the job has ended."""

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

MAX_RESERVATIONS = 20_000
"""Maximum unfinished jobs whose reservations are settled; older reservations stay charged in full."""


class JobQuota:
    """Returns the tokens that a job did not use, when the gateway that accepted it hears of its end.

    If that gateway has stopped by then or misses the event, the job costs all tokens reserved for it.
    """

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.store = JobStore(bus)
        self._reservations: OrderedDict[str, TokenReservation] = OrderedDict()
        """Key: the subject of the job's events."""
        self._events: Subscription | None = None

    async def hold(self, job_id: str, reservation: TokenReservation) -> None:
        """Settle the reservation when the job has ended. The first call subscribes to the events of jobs."""
        if not reservation.limited:
            return
        if self._events is None:
            self._events = await self.bus.subscribe(event_subject("job.*"), self._changed)
        self._reservations.setdefault(event_subject(job_id), reservation)
        if len(self._reservations) > MAX_RESERVATIONS:
            self._reservations.popitem(last=False)

    def drop(self, job_id: str, reservation: TokenReservation) -> None:
        """Return all tokens: the job was refused, or its key names an earlier job."""
        if self._reservations.get(event_subject(job_id)) is reservation:
            del self._reservations[event_subject(job_id)]
        reservation.settle()

    async def stop(self) -> None:
        if self._events is not None:
            await self._events.unsubscribe()

    async def _changed(self, message: Message) -> None:
        if message.subject not in self._reservations:
            return
        job = from_json(message.data)
        if not JobStatus(job["status"]).final:
            return
        reservation = self._reservations.pop(message.subject)
        try:
            result = await self.store.result(job["id"], job["retries"])
        except OrchestraError as error:
            log.warning(
                "cannot read how many tokens %s used, so it costs all that were reserved: %s",
                job["id"],
                error,
            )
            return
        if result is not None:
            reservation.observe(result.ended)
        reservation.settle()
