"""The client of streams: it puts generations and runs on their queues and reads their streams.

A client subscribes to `stream.<client>.*` once. Its name is in the id of all its work, so every answer
reaches it without a subscription per request.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from itertools import count
from secrets import token_hex
from typing import Protocol

from pydantic import ValidationError

from actors.bus.bus import Bus, Headers, Message, Subscription
from actors.bus.jetstream import MESSAGE_ID_HEADER, enqueue, stored
from actors.bus.message_deleter import MessageDeleter
from actors.bus.subjects import GenerationQueue, RunQueue, StreamAddress
from actors.runtime.envelope import DEFAULT_DEADLINE_S, Envelope
from actors.streams.channel import SUPERSEDED
from actors.streams.model_call import ModelCallSpan, start_model_call
from actors.streams.reader import DEFAULT_LIMITS, StreamLimits, StreamReader
from actors.telemetry.tracing import over_ns
from orchestration.errors import (
    BusUnavailable,
    DeadlineExceeded,
    OrchestraError,
    ShuttingDown,
    from_body,
)
from orchestration.messages import (
    Generation,
    HandoffRequest,
    Run,
    StreamEnd,
    StreamEvent,
    StreamPosition,
    Work,
)
from orchestration.placement import NEEDS_HEADER, needs_of

log = logging.getLogger(__name__)

ID_HEADER = "Orchestra-Id"
"""Id of the generation, run or job in the message."""
DIRECT_MOVES = "Orchestra-Direct-Moves"
"""On a generation that was on the direct path: the number of nodes that died or failed while they had it."""
DIRECT_ERROR = "Orchestra-Direct-Error"
"""On a generation that was on the direct path: the error of its nodes, in JSON, for which a fallback model
should answer."""
Requeue = Callable[[bytes, int, OrchestraError | None], Awaitable[None]]
"""Puts a generation on its queue after all: its body, the number of nodes that failed with it, and the error
for which another model should answer."""
MAX_ORPHANS = 10_000
"""Maximum cancels kept while NATS is away; the oldest are dropped."""
STREAM_PREFIX = "stream."

REPLAY_DELAY_S = 2.0
REQUEUE_PAUSE_S = 0.1
"""Pause before a queue that could not take a generation is asked again."""


class DirectSender(Protocol):
    """Sends generations straight to nodes: see `actors.placement.direct`."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def begin(self, work: Generation, envelope: Envelope, stream: StreamReader, requeue: Requeue) -> bool: ...

    def queued(self, work: Generation, stream: StreamReader) -> None: ...

    def close(self, work_id: str, *, ended: bool) -> bool: ...


class StreamClient:
    """Puts work on queues and reads its streams. Use one per process and role; call `start` first.

    It answers on `stream_handoff.<id>` how far the stream of that id has come, so that a dispatcher can have
    another node go on with it, or race the one that is late: see `StreamReader`.
    """

    def __init__(
        self, bus: Bus, limits: StreamLimits = DEFAULT_LIMITS, *, direct: DirectSender | None = None
    ) -> None:
        self.bus = bus
        self.direct = direct
        self.limits = limits
        self.name = token_hex(6)
        self.readers: dict[str, StreamReader] = {}
        """The streams that are open, by the id of their work."""
        self._numbers = count()
        self._unsent_cancels: deque[str] = deque(maxlen=MAX_ORPHANS)
        self._subscriptions: list[Subscription] = []
        self._outage_timer: asyncio.TimerHandle | None = None
        self.withdrawals = MessageDeleter(bus)

    async def start(self) -> None:
        self._subscriptions = [
            await self.bus.subscribe(StreamAddress.of_client(self.name), self._on_event, exclusive=True),
            await self.bus.subscribe(StreamAddress(f"{self.name}.*").handoff, self._on_handoff_request),
        ]
        self.bus.local_streams[self.name] = self.readers
        self.bus.on_disconnect.append(self._on_disconnect)
        self.bus.on_reconnect.append(self._on_reconnect)
        if self.direct is not None:
            await self.direct.start()
        await self.bus.flush()

    async def stop(self) -> None:
        """Streams still open get an error."""
        self._fail_all(ShuttingDown("shutting down"))
        if self.direct is not None:
            await self.direct.stop()
        self.bus.local_streams.pop(self.name, None)
        if self._on_disconnect in self.bus.on_disconnect:
            self.bus.on_disconnect.remove(self._on_disconnect)
            self.bus.on_reconnect.remove(self._on_reconnect)
        if self._outage_timer is not None:
            self._outage_timer.cancel()
        await self.withdrawals.stop()
        for subscription in self._subscriptions:
            await subscription.unsubscribe()

    def new_id(self) -> str:
        """An id for a generation or a run whose stream comes to this client."""
        return f"{self.name}.{next(self._numbers):x}"

    @property
    def open_streams(self) -> int:
        return len(self.readers)

    def stream(self, work: Work, envelope: Envelope) -> AsyncGenerator[StreamEvent, None]:
        """Send `work` straight to a node with room, or put it on its queue, and `follow` its stream."""
        if not isinstance(work, Run) and (call := start_model_call(work, envelope)) is not None:
            return self._recorded(work, envelope.with_trace(call.traceparent), call)
        return self.follow(work.id, envelope, partial(self._send, work, envelope))

    async def _recorded(
        self, work: Work, envelope: Envelope, call: ModelCallSpan
    ) -> AsyncGenerator[StreamEvent, None]:
        """`follow` the stream of a model call that is traced."""
        with call:
            async with aclosing(
                self.follow(work.id, envelope, partial(self._send, work, envelope))
            ) as events:
                async for event in events:
                    call.observe(event, self.readers[work.id])
                    yield event

    async def follow(
        self, work_id: str, envelope: Envelope, send: Callable[[str], Awaitable[None]]
    ) -> AsyncGenerator[StreamEvent, None]:
        """Request by `send`, and yield the events as they come; the last is an `StreamEnd` without an error.

        `work_id` is of `new_id`. `send` gets a reply subject for the queue's acknowledgement.

        Raises the error the stream ended with, `QueueFull`, `DeadlineExceeded` at the envelope's deadline,
        and `BusUnavailable` if NATS is lost before a queue accepted the work, if it is away for longer than
        `max_outage_s`, or if no queue accepts the work within `accept_timeout_s`. Closing the iterator before
        the end cancels the work. Use it under `contextlib.aclosing`.
        """
        remaining = envelope.remaining(DEFAULT_DEADLINE_S)
        opened = self.readers[work_id] = StreamReader(partial(self._request_replay, work_id), self.limits)
        accepted = self.bus.expect(lambda reply: self._on_accepted(opened, reply))
        timer = asyncio.get_running_loop().call_later(
            remaining,
            opened.fail,
            DeadlineExceeded(f"no complete answer within {remaining:.3g} s"),
        )
        ended = False
        try:
            await send(accepted)
            while not ended:
                event = await opened.events.get()
                if isinstance(event, OrchestraError):
                    raise event
                if isinstance(event, StreamEnd):
                    ended = True
                    if event.error is not None:
                        raise from_body(event.error)
                yield event
        finally:
            timer.cancel()
            opened.leave()
            self.bus.forget(accepted)
            self.readers.pop(work_id, None)
            on_node = self.direct is not None and self.direct.close(work_id, ended=ended)
            if not ended and not opened.refused and not on_node:
                self._cancel(work_id)
                if opened.queued:
                    self.withdrawals.add(opened.receipt)

    async def _send(self, work: Work, envelope: Envelope, accepted: str) -> None:
        opened = self.readers[work.id]
        opened.streamed = not isinstance(work, Run) and work.streamed
        if self.direct is not None and not isinstance(work, Run):
            if self.direct.begin(work, envelope, opened, partial(self._requeue, work, envelope)):
                return
            self.direct.queued(work, opened)
        await self._publish(work, envelope, accepted)

    async def _requeue(
        self, work: Generation, envelope: Envelope, body: bytes, moves: int, error: OrchestraError | None
    ) -> None:
        """Put a generation that was on the direct path on its queue; `body` continues it. With the `error` of
        its nodes another model should answer. Raises what the queue answers."""
        headers = self._headers(work, envelope)
        headers |= {DIRECT_MOVES: str(moves), MESSAGE_ID_HEADER: work.id}  # stored once, however often
        if error is not None:
            headers[DIRECT_ERROR] = json.dumps(error.body().model_dump(mode="json"))
        subject = GenerationQueue(work.priority, work.model).subject
        opened = self.readers.get(work.id)
        if self.direct is not None and opened is not None:
            self.direct.queued(work, opened)
        while opened is not None and not opened.ended:
            try:
                await enqueue(self.bus, subject, body, headers, timeout=self.limits.accept_timeout_s)
                return
            except (BusUnavailable, DeadlineExceeded) as failure:
                log.info("generation %s is put on its queue again: %s", work.id, failure)
                await asyncio.sleep(REQUEUE_PAUSE_S)
                await self.bus.wait_connected(self.limits.max_outage_s)

    def _headers(self, work: Work, envelope: Envelope) -> Headers:
        headers = envelope.headers()
        headers[ID_HEADER] = work.id
        if not isinstance(work, Run):
            headers[NEEDS_HEADER] = needs_of(work).encode()
        return headers

    async def _publish(self, work: Work, envelope: Envelope, accepted: str) -> None:
        headers = self._headers(work, envelope)
        if isinstance(work, Run):
            subject = RunQueue(work.priority, work.pattern).subject
        else:
            subject = GenerationQueue(work.priority, work.model).subject
        body = work.model_dump_json(exclude_defaults=True).encode()
        await self.bus.publish(subject, body, reply=accepted, headers=headers)
        opened = self.readers[work.id]
        opened.acceptance = asyncio.get_running_loop().call_later(
            self.limits.accept_timeout_s, self._check_accepted, opened
        )

    @staticmethod
    def _check_accepted(opened: StreamReader) -> None:
        if not opened.accepted:
            opened.fail(
                BusUnavailable(
                    f"no queue acknowledged the request within {opened.limits.accept_timeout_s:g} s: "
                    "the NATS server does not answer, or its disk is full; ask again",
                    retry_after_s=1,
                )
            )

    @staticmethod
    def _on_accepted(opened: StreamReader, reply: Message) -> None:
        """Handle the queue's acknowledgement: a refusal ends the stream."""
        try:
            if reply.status == "503":
                raise BusUnavailable("no stream takes the request; were the streams declared?")
            if b'"error"' in reply.data:  # nothing else in it is needed
                stored("of the request", reply)
            opened.accepted, opened.receipt = True, reply.data
        except OrchestraError as error:
            opened.refuse(error)

    def _cancel(self, work_id: str) -> None:
        try:
            self.bus.post(StreamAddress(work_id).cancel, b"%d" % over_ns())
        except BusUnavailable:
            self._unsent_cancels.append(work_id)  # sent when NATS is back: the work may still be queued

    def _on_event(self, message: Message) -> None:
        opened = self.readers.get(message.subject[len(STREAM_PREFIX) :])
        # Events after the end come from work that was done twice.
        if opened is None or not opened.put(message):
            self.bus.answer(message, SUPERSEDED)

    def _on_handoff_request(self, message: Message) -> None:
        opened = self.readers.get(StreamAddress.parse(message.subject).id)
        try:
            request = HandoffRequest.model_validate_json(message.data)
            if opened is None:
                position = StreamPosition(open=False)
            elif request.peek:
                position = opened.peek(request.quiet_s, request.attempt)
            elif request.winner_subject:
                position = opened.race(partial(self._publish_winner, request.winner_subject))
            else:
                position = opened.hand_off(request.quiet_s, request.attempt)
        except ValidationError as error:
            log.warning("a handoff request on %s cannot be read: %s", message.subject, error)
            return
        self.bus.answer(message, position.model_dump_json(exclude_defaults=True).encode())

    def _publish_winner(self, subject: str, writer: str) -> None:
        try:
            self.bus.post(subject, writer.encode())
        except BusUnavailable as error:
            log.debug("the winner of two writers could not be published: %s", error)

    def _on_disconnect(self) -> None:
        """Fail the streams that no queue has accepted yet. Accepted work is still there when NATS is back."""
        error = BusUnavailable("the connection to NATS was lost before the answer was complete")
        for opened in self.readers.values():
            if not opened.accepted:
                opened.fail(error)
        if self._outage_timer is None:
            self._outage_timer = asyncio.get_running_loop().call_later(
                self.limits.max_outage_s, self._fail_all, error
            )

    def _on_reconnect(self) -> None:
        if self._outage_timer is not None:
            self._outage_timer.cancel()
            self._outage_timer = None
        for _ in range(len(self._unsent_cancels)):
            self._cancel(self._unsent_cancels.popleft())
        self.withdrawals.resume()
        self._catch_up()
        # And once more, for writers that reconnect a moment later.
        asyncio.get_running_loop().call_later(REPLAY_DELAY_S, self._catch_up)

    def _catch_up(self) -> None:
        """Request the events that were published while the connection was lost."""
        for opened in list(self.readers.values()):
            opened.request_replay()

    def _request_replay(self, work_id: str, seq: int) -> None:
        try:
            self.bus.post(StreamAddress(work_id).replay, b"%d" % seq)
        except BusUnavailable as error:
            log.debug("cannot request missing events of %s: %s", work_id, error)

    def _fail_all(self, error: OrchestraError) -> None:
        for opened in self.readers.values():
            opened.fail(error)
