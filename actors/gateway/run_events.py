"""`GET /v1/runs/{id}/events`: the events of a run, as server-sent events."""

from __future__ import annotations

import logging
from contextlib import aclosing

from actors.bus.bus import Message, Subscription
from actors.bus.subjects import RunAddress
from actors.gateway.disconnect_monitor import StreamMonitor
from actors.gateway.http_context import HttpContext
from actors.gateway.jobs_api import JobsApi
from actors.gateway.metrics import RUN_EVENT_STREAMS
from actors.jobs.errors import NoSuchJob
from actors.jobs.records import JobStatus
from actors.runtime.envelope import CALLER
from actors.streams.run_events import QUEUED, STATE_HEADER, NoSuchRun, RunEventReader
from orchestration.errors import InvalidRequest, Overloaded, Unavailable
from orchestration.messages import Wire

log = logging.getLogger(__name__)

LIMIT_S = 3_600.0
"""Maximum duration of one stream; a client continues with the id of the last event."""


class RunId(Wire):
    """The id of a run."""

    id: str
    """Id of the run, as in the header `X-Orchestra-Run` of its answer."""


class RunEvents:
    """Also answers other gateways that ask for a run whose response is streamed here, while it waits for a
    coordinator."""

    def __init__(self, api: JobsApi, *, every_caller: bool = False) -> None:
        """With `every_caller`, as for operators, anyone may read any run."""
        self.every_caller = every_caller
        self.api = api
        self.gateway = api.gateway
        self._open: set[RunEventReader] = set()
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.gateway.bus.subscribe(RunAddress.REPLAYS, self._on_replay_request)

    async def stop(self) -> None:
        """End all streams. Call it when the gateway starts to drain."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        for watch in self._open:
            watch.end(Unavailable("the gateway is shutting down", retry_after_s=1))

    async def stream(self, context: HttpContext) -> None:
        """Stream from the first event, or after the header `Last-Event-ID`; 204 if no more events come.

        Raises `NoSuchRun` for an unknown run and for one of another caller, `Overloaded`.
        """
        run_id = context.path_params["id"]
        after = _after(context)
        limit = self.gateway.settings.max_run_event_streams
        if len(self._open) >= limit:
            raise Overloaded(
                f"limit reached: {limit} of {limit} streams of run events (max_run_event_streams)",
                retry_after_s=1,
            )
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
        """Raise `NoSuchRun` unless the caller may read the run."""
        viewer = None if self.every_caller else self.api.viewer(caller)
        if watch.owner is None:
            known = await self._waits(run_id, viewer)
        else:
            known = viewer is None or self.gateway.authenticator.namespace(watch.owner) == viewer
        if not known:
            raise NoSuchRun.of(run_id)

    async def _waits(self, run_id: str, viewer: str | None = None) -> bool:
        """Whether the run is a job that has not ended, so that a coordinator may still take it."""
        try:
            job = await self.api.service.get(run_id, viewer)
        except NoSuchJob:
            return False
        return not JobStatus(job["status"]).final

    async def _stream(self, context: HttpContext, watch: RunEventReader, run_id: str) -> None:
        with StreamMonitor(context, self.gateway.settings, limit_s=LIMIT_S):
            async with aclosing(watch.events(lambda: self._waits(run_id))) as events:
                async for event in events:
                    type_ = event.type if event.type.isprintable() else "event"
                    await context.event(event.data, f"id: {event.seq}\nevent: {type_}\n".encode())
        if context.status:
            await context.end_stream()
        else:
            await context.answer(204, b"")

    def _on_replay_request(self, message: Message) -> None:
        """Another gateway asks for the events of a run, which may still wait in the queue."""
        caller = self.gateway.runs.get(RunAddress.of_replay(message.subject).id)
        if caller is None:
            return
        self.gateway.bus.answer(message, headers={CALLER: caller, STATE_HEADER: QUEUED})


def _after(context: HttpContext) -> int:
    value = context.header(b"last-event-id")
    if not value:
        return -1
    if not (value.isascii() and value.isdecimal() and len(value) < 16):
        raise InvalidRequest(f"Last-Event-ID {value[:40]!r} is not the id of an event", param="Last-Event-ID")
    return int(value)
