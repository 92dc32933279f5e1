"""`GET /v1/runs/{id}/events`: what happens in a run, as server-sent events."""

from __future__ import annotations

import logging
from contextlib import aclosing

from actors.bus.bus import Message, Subscription
from actors.bus.subjects import RunAddress
from actors.gateway.disconnect_monitor import DisconnectMonitor
from actors.gateway.http_context import HttpContext
from actors.gateway.jobs_api import JobsApi
from actors.gateway.metrics import RUN_EVENT_STREAMS
from actors.jobs.errors import NoSuchJob
from actors.jobs.records import JobStatus
from actors.runtime.envelope import CALLER
from actors.streams.run_events import QUEUED, STATE_HEADER, NoSuchRun, RunEventReader
from orchestration.errors import InvalidRequest, OrchestraError, Overloaded, Unavailable
from orchestration.messages import Wire

log = logging.getLogger(__name__)

LIMIT_S = 3_600.0
"""The longest that one stream is open: a client goes on from the last event's id."""


class RunId(Wire):
    id: str


class RunEvents:
    """Also tells other gateways which runs are held here, while no coordinator has them."""

    def __init__(self, api: JobsApi) -> None:
        self.api = api
        self.gateway = api.gateway
        self._open: set[RunEventReader] = set()
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.gateway.bus.subscribe(RunAddress.REPLAYS, self._asked)

    async def stop(self) -> None:
        """Nobody may watch on: call it when the gateway begins to drain."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        for watch in self._open:
            watch.end(Unavailable("the gateway is shutting down", retry_after_s=1))

    async def stream(self, context: HttpContext) -> None:
        """From the beginning, or after the header `Last-Event-ID`; 204 where no more will come.

        Raises `NoSuchRun` for a run that nobody knows or that is another caller's, `Overloaded`.
        """
        run_id = context.path_params["id"]
        after = _after(context)
        most = self.gateway.settings.max_run_event_streams
        if len(self._open) >= most:
            raise Overloaded(f"max_run_event_streams {most} streams of runs are open", retry_after_s=1)
        watch = RunEventReader(self.gateway.bus, run_id, after)
        self._open.add(watch)
        RUN_EVENT_STREAMS.set(len(self._open))
        try:
            async with watch:
                await self._check(watch, run_id, context.caller)
                await self._stream(context, watch, run_id)
        finally:
            self._open.discard(watch)
            RUN_EVENT_STREAMS.set(len(self._open))

    async def _check(self, watch: RunEventReader, run_id: str, caller: str) -> None:
        """Raises `NoSuchRun`."""
        viewer = self.api.viewer(caller)
        if watch.owner is None:
            known = await self._waits(run_id, viewer)
        else:
            known = viewer is None or self.gateway.authenticator.namespace(watch.owner) == viewer
        if not known:
            raise NoSuchRun.of(run_id)

    async def _waits(self, run_id: str, viewer: str | None = None) -> bool:
        """Whether a coordinator is to have the run yet: it is a job that has not ended."""
        try:
            job = await self.api.service.get(run_id, viewer)
        except NoSuchJob:
            return False
        return not JobStatus(job["status"]).final

    async def _stream(self, context: HttpContext, watch: RunEventReader, run_id: str) -> None:
        async with DisconnectMonitor(context, self.gateway.settings, stream=True, limit_s=LIMIT_S):
            async with aclosing(watch.events(lambda: self._waits(run_id))) as events:
                async for told in events:
                    type_ = told.type if told.type.isprintable() else "event"
                    await context.event(told.data, f"id: {told.seq}\nevent: {type_}\n".encode())
        if context.status:
            await context.end_stream()
        else:
            await context.answer(204, b"")

    def _asked(self, message: Message) -> None:
        """Another asks for the events of a run: it waits in the queue, perhaps."""
        caller = self.gateway.runs.get(RunAddress.of_replay(message.subject).id)
        if caller is None:
            return
        try:
            self.gateway.bus.post(message.reply, headers={CALLER: caller, STATE_HEADER: QUEUED})
        except (OrchestraError, ValueError) as error:
            log.debug("could not say on %s that the run waits: %s", message.subject, error)


def _after(context: HttpContext) -> int:
    said = context.header(b"last-event-id")
    if not said:
        return -1
    if not (said.isascii() and said.isdecimal() and len(said) < 16):
        raise InvalidRequest(f"Last-Event-ID {said[:40]!r} is not the id of an event", param="Last-Event-ID")
    return int(said)
