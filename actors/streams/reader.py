"""Reads one stream: in order, from one writer at a time, and handed off to the next when that one dies."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from secrets import token_hex

from pydantic import ValidationError

from actors.bus.message import Message
from actors.streams.channel import OUT_OF_BAND, WRITER_HEADER
from actors.telemetry.tracing import over_ns
from orchestration.errors import InternalError, NodeLost, OrchestraError, Unavailable
from orchestration.messages import (
    Continuation,
    StreamEnd,
    StreamEvent,
    StreamPosition,
    TextDelta,
    WriterAlive,
    decode_events,
)

OnEnd = Callable[[StreamEnd, str], None]

REPLAY_INTERVAL_S = 0.2
"""Minimum time between two requests for missing events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """How much and how long a client of streams waits."""

    max_buffered: int = 16_384
    """Maximum events of one stream that wait for a slow reader: more than a model's longest answer. Beyond it
    the stream fails."""
    max_silence_s: float = 10.0
    """How long the first writer may be silent after a second one began, before it counts as dead: the time of
    a lease and its sweep."""
    max_gap_s: float = 15.0
    """How long missing events may stay missing before the stream fails. They are sent again within
    milliseconds. If their writer is gone, another continues; if its dispatcher is gone too, that takes the
    ack_wait of 6 s more."""
    accept_timeout_s: float = 3.0
    """How long to wait for the queue's acknowledgement, which takes milliseconds. When the server that leads
    the queue dies, messages on their way to it are lost silently, and the caller should ask again."""
    max_outage_s: float = 8.0
    """How long NATS may be away before open streams fail: 5 s for a restart of its server, and 3 s until all
    processes have reconnected."""


DEFAULT_LIMITS = StreamLimits()


class StreamReader:
    """Takes messages with `put`; `events` holds the events in order, or the error that ends the stream.

    Failover asks the reader, which knows best how far a stream has come: `hand_off` returns the text so far
    and names the only writer that is read from then on. What the replaced writer still sends is ignored, so
    no event is read twice or lost.

    Without a handoff, work that was delivered twice has two writers, which cut their text differently: only
    the first one is read. The same holds for two writers that `race`.

    Events that were lost on the way are requested again by `request_replay`, from the first missing one on.
    """

    def __init__(self, request_replay: Callable[[int], None], limits: StreamLimits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._request_replay = request_replay
        self.events: asyncio.Queue[StreamEvent | OrchestraError] = asyncio.Queue()
        self.refused = False
        """Whether nothing has the work, because the queue or all nodes refused it: there is nothing to
        cancel."""
        self.accepted = False
        """Whether the queue or a node has the work, which then survives the loss of a connection."""
        self.opened_at = time.perf_counter()
        self.streamed = False
        """Whether it is a model call whose text is read while it is written."""
        self.first_text_s = 0.0
        """Seconds until the first text or reasoning of a model call that is streamed; 0: none came."""
        self.receipt = b""
        """The queue's acknowledgement."""
        self.acceptance: asyncio.TimerHandle | None = None
        """Fails the stream if nothing has accepted the work by then."""
        self.on_end: OnEnd | None = None
        """Called with the end of the stream and the name of its writer."""
        self.left_ns = 0
        """When the caller left, as Unix time in nanoseconds; 0: it has not."""
        self._expected = 0
        self._handed_off_at = 0
        """The number of the first event of the present writer."""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._old_reasoning = ""
        self._old_reasoning_read = 0
        self._text_started = False
        self._tokens = 0
        self._writer: str | None = None
        self.handed_off = False
        """Whether the work was given to another writer."""
        self.moves = 0
        """Times that another writer took over."""
        self.hedges = 0
        """Times that a second writer was admitted beside the first."""
        self._attempt = 0
        """The number of the latest delivery of the work that may write."""
        self._second_writer = ""
        self._on_winner: Callable[[str], None] | None = None
        self._ended = False
        self._last_signal_at = -math.inf
        self._silence_timer: asyncio.TimerHandle | None = None
        self._gap_timer: asyncio.TimerHandle | None = None
        self._replay_requested_at = 0.0

    @property
    def ended(self) -> bool:
        """Whether the end was read, or the stream has failed."""
        return self._ended

    @property
    def begun(self) -> bool:
        """Whether a writer has begun, or the stream has ended."""
        return self._writer is not None or self._ended

    @property
    def queued(self) -> bool:
        """Whether the work may still be in its queue: no writer has begun."""
        return bool(self.receipt) and self._writer is None

    def put(self, message: Message) -> bool:
        """Take the events of a message; False if their writer was replaced, and should stop."""
        try:
            frames = decode_events(message.data)
        except ValidationError as error:
            defect = InternalError(f"an event on {message.subject} cannot be read")
            defect.__cause__ = error
            self.fail(defect)
            return True
        writer = message.header(WRITER_HEADER)
        current = True
        for frame in frames:
            current = self.take(frame.seq, frame.event, writer)
        return current

    def take(self, seq: int, event: StreamEvent | WriterAlive, writer: str) -> bool:
        """Take one event; False if its writer was replaced, and should stop."""
        if (
            self._second_writer
            and writer == self._second_writer
            and isinstance(event, StreamEnd)
            and event.error is not None
        ):
            return True  # it cannot do it at all, which the first one may
        if isinstance(event, WriterAlive):
            return self._is_alive(writer)
        if seq != OUT_OF_BAND and self._is_from_rival(writer):
            return not self.handed_off
        if self._ended or (seq < self._expected and not isinstance(event, StreamEnd)):
            return True
        self.accepted = True
        if seq > self._expected:
            self._request_missing(seq)
            return True
        if self._gap_timer is not None:
            self._gap_timer.cancel()
            self._gap_timer = None
        if isinstance(event, StreamEnd):
            self._ended = True
            self.events.put_nowait(event)
            if self.on_end is not None:
                self.on_end(event, writer)
        elif self.events.qsize() >= self.limits.max_buffered:
            self.fail(
                Unavailable(f"{self.limits.max_buffered} events wait to be read: the reader is too slow")
            )
        else:
            self._expected += 1
            if isinstance(event, TextDelta):
                event = self._without_old_reasoning(event)
                self._text.append(event.text)
                self._reasoning.append(event.reasoning)
                self._tokens += event.tokens
                if self.streamed and not self.first_text_s and (event.text or event.reasoning):
                    self.first_text_s = round(time.perf_counter() - self.opened_at, 6)
            self.events.put_nowait(event)
        return True

    def _without_old_reasoning(self, delta: TextDelta) -> TextDelta:
        """The delta without the reasoning that an earlier writer has sent: the next one writes its reasoning
        again. Reasoning that differs is kept, unless the answer's text has begun."""
        left = len(self._old_reasoning) - self._old_reasoning_read
        if not delta.reasoning or not left:
            return delta
        new = ""
        if not self._text_started:
            same = self._old_reasoning.startswith(delta.reasoning[:left], self._old_reasoning_read)
            new = delta.reasoning[left if same else 0 :]
            self._old_reasoning_read += min(left, len(delta.reasoning)) if same else left
        return replace(delta, reasoning=new)

    def _request_missing(self, before: int) -> None:
        """Request the missing events before that number; fail if they do not arrive within `max_gap_s`."""
        loop = asyncio.get_running_loop()
        if self._gap_timer is None:
            error = NodeLost(f"the stream lost events {self._expected} to {before - 1}")
            self._gap_timer = loop.call_later(self.limits.max_gap_s, self.fail, error)
        elif time.monotonic() - self._replay_requested_at < REPLAY_INTERVAL_S:
            return
        self.request_replay()

    def request_replay(self) -> None:
        """Request all missing events, including the end, after the connection was lost."""
        if not self._ended:
            self._replay_requested_at = time.monotonic()
            self._request_replay(self._expected)

    def fail(self, error: OrchestraError) -> None:
        """End the stream with `error`, after the events that have arrived. Later events are ignored."""
        self._ended = True
        self.events.put_nowait(error)

    def refuse(self, error: OrchestraError) -> None:
        """End the stream with the `error` of the queue or the nodes, which do not have the work."""
        self.refused = True
        self.fail(error)

    def hand_off(self, quiet_s: float, attempt: int = 0) -> StreamPosition:
        """The position, with a new name for the only writer that may continue: that of delivery `attempt`.

        An earlier delivery than the present one is superseded. Otherwise two processes with the same work, as
        after an outage of NATS, would take the stream from each other again and again.

        With `quiet_s` above 0, a writer that sent something within that time keeps the stream. If no writer
        has sent anything, the present one is not replaced: whichever writes first is read.
        """
        if self._ended:
            return StreamPosition(open=False)
        if self._superseded(attempt):
            return StreamPosition(superseded=True)
        if quiet_s:
            if time.monotonic() - self._last_signal_at < quiet_s:
                return StreamPosition(alive=True)
            if self._expected == 0 and self._gap_timer is None and not self.handed_off:
                self._attempt = max(self._attempt, attempt)
                return StreamPosition()
        self.close()
        self._attempt = max(self._attempt, attempt)
        self.moves += 1
        self.handed_off, self._second_writer, self._on_winner = True, "", None
        self._handed_off_at = self._expected
        self._last_signal_at = time.monotonic()
        self._writer = token_hex(4)
        self._old_reasoning, self._old_reasoning_read = "".join(self._reasoning), 0
        self._text_started = any(self._text)
        continuation = Continuation(
            text="".join(self._text), tokens=self._tokens, first_seq=self._expected, writer=self._writer
        )
        return StreamPosition(continuation=continuation)

    def _superseded(self, attempt: int) -> bool:
        return 0 < attempt < self._attempt

    def peek(self, quiet_s: float, attempt: int = 0) -> StreamPosition:
        """Whether the writer sent something within `quiet_s`, and how many events. Changes nothing."""
        return StreamPosition(
            open=not self._ended,
            alive=time.monotonic() - self._last_signal_at < quiet_s,
            superseded=self._superseded(attempt),
            events=self._expected - self._handed_off_at,
        )

    def race(self, on_winner: Callable[[str], None]) -> StreamPosition:
        """Admit a second writer, whose name is in the answer, unless some text was read already.

        `on_winner` receives the name of the first to write. That one is read, and the other is replaced.
        """
        if self._ended:
            return StreamPosition(open=False)
        if self._writer is not None or self._on_winner is not None:
            return StreamPosition(alive=True)
        self.hedges += 1
        self._second_writer, self._on_winner = token_hex(4), on_winner
        return StreamPosition(continuation=Continuation(writer=self._second_writer))

    def leave(self) -> None:
        """The caller reads no more."""
        self.left_ns = over_ns()
        self._ended = True
        self.close()

    def close(self) -> None:
        """Stop all timers."""
        if self.acceptance is not None:
            self.acceptance.cancel()
            self.acceptance = None
        for timer in (self._silence_timer, self._gap_timer):
            if timer is not None:
                timer.cancel()
        self._silence_timer = self._gap_timer = None

    def _is_alive(self, writer: str) -> bool:
        """Note a keep-alive; False if it comes from a writer that was replaced."""
        if self._writer is None or self._writer == writer:
            self.accepted = True
            self._last_signal_at = time.monotonic()
            return True
        return not self.handed_off

    def _is_from_rival(self, writer: str) -> bool:
        """Whether another writer sent it than the present one, which then must not stay silent."""
        if self._writer is None or self._writer == writer:
            self._writer, self._last_signal_at = writer, time.monotonic()
            if self._on_winner is not None:
                self._end_race(writer)
            return False
        if self._silence_timer is None and not self.handed_off:
            loop = asyncio.get_running_loop()
            self._silence_timer = loop.call_later(self.limits.max_silence_s, self._check_silence)
        return True

    def _end_race(self, winner: str) -> None:
        on_winner, self._on_winner, self._second_writer = self._on_winner, None, ""
        self.handed_off = True  # other writers stop
        if on_winner is not None:
            on_winner(winner)

    def _check_silence(self) -> None:
        left = self._last_signal_at + self.limits.max_silence_s - time.monotonic()
        if left > 0:
            self._silence_timer = asyncio.get_running_loop().call_later(left, self._check_silence)
        else:
            self.fail(NodeLost("the node that wrote the answer was lost, after some of it was read"))
