"""One stream as its asker reads it: in order, from one writer at a time, handed over when that one dies."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace
from secrets import token_hex

from pydantic import ValidationError

from actors.bus.message import Message
from actors.streams.writer import OUT_OF_BAND, WRITER_HEADER
from orchestration.errors import InternalError, NodeLost, OrchestraError, Unavailable
from orchestration.messages import StreamEnd, StreamEvent, StreamPosition, TextDelta, decode_event

MAX_BUFFERED = 16_384
"""Events that may wait for a slow reader of one stream: more than a model's longest answer."""
MAX_SILENCE_S = 10.0
"""A first writer silent for so long after a second one began is taken for dead: a lease and its sweep."""

MAX_GAP_S = 15.0
"""Events that were lost are sent again within milliseconds. Where their writer is gone, another takes over:
where its dispatcher is gone too, after the ack_wait of 6 s and a look at who writes."""
REPLAY_INTERVAL_S = 0.2
"""Between two requests for them."""


class StreamReader:
    """Takes messages with `put`; `arrived` holds the events in order, or the error that ends it.

    Who reads knows best how far a stream has come, so failover asks it: `hand_over` tells the text so
    far and names the only writer that is heard from then on. Whatever a node that was given up still
    sends, thawed or slow, is ignored, and so no event can come twice or be lost.

    Without a hand-over, work that was delivered twice has two writers, which cut their text into
    different chunks: only the first one is read. So it is with two that `race`.

    Events that were lost on the way are asked for again by `ask_again`, from the number that is missing on.
    """

    def __init__(self, ask_again: Callable[[int], None]) -> None:
        self._ask_again = ask_again
        self.arrived: asyncio.Queue[StreamEvent | OrchestraError] = asyncio.Queue()
        self.refused = False
        """By the queue: there is nothing to cancel."""
        self.accepted = False
        """By the queue, or by a node that writes: it survives the loss of a connection."""
        self.receipt = b""
        """The queue's acknowledgement."""
        self.acceptance: asyncio.TimerHandle | None = None
        """Runs when it should be accepted."""
        self._expected = 0
        self._taken_over_at = 0
        """The number of the first event of the writer that counts."""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._again = ""
        self._thought_again = 0
        self._begun = False
        self._tokens = 0
        self._writer: str | None = None
        self._handed_over = False
        self._holder = 0
        """The latest delivery of the work that was told to go on."""
        self._second = ""
        self._on_first: Callable[[str], None] | None = None
        self._over = False
        self._heard_at = -math.inf
        self._silence: asyncio.TimerHandle | None = None
        self._gap: asyncio.TimerHandle | None = None
        self._asked_at = 0.0

    @property
    def queued(self) -> bool:
        """Whether it may be in its queue still: nobody has written any of it."""
        return bool(self.receipt) and self._writer is None

    def put(self, message: Message) -> bool:
        """Take an event; False when its writer was given up, and should stop."""
        try:
            frame = decode_event(message.data)
        except ValidationError as error:
            defect = InternalError(f"an event on {message.subject} cannot be read")
            defect.__cause__ = error
            self.fail(defect)
            return True
        seq, event = frame.seq, frame.event
        writer = message.header(WRITER_HEADER)
        if (
            self._second
            and writer == self._second
            and isinstance(event, StreamEnd)
            and event.error is not None
        ):
            return True  # it cannot do it at all, which the first one may
        if seq == OUT_OF_BAND and isinstance(event, TextDelta):
            return self._is_alive(writer)
        if seq != OUT_OF_BAND and self._is_from_rival(writer):
            return not self._handed_over
        if self._over or (seq < self._expected and not isinstance(event, StreamEnd)):
            return True
        self.accepted = True
        if seq > self._expected:
            self._lost(seq)
            return True
        if self._gap is not None:
            self._gap.cancel()
            self._gap = None
        if isinstance(event, StreamEnd):
            self._over = True
            self.arrived.put_nowait(event)
        elif self.arrived.qsize() >= MAX_BUFFERED:
            self.fail(Unavailable(f"{MAX_BUFFERED} events wait to be read: the reader is too slow"))
        else:
            self._expected += 1
            if isinstance(event, TextDelta):
                event = self._unread(event)
                self._text.append(event.text)
                self._reasoning.append(event.reasoning)
                self._tokens += event.tokens
            self.arrived.put_nowait(event)
        return True

    def _unread(self, delta: TextDelta) -> TextDelta:
        """The delta without the reasoning that was read of an earlier writer: the next one thinks anew. What
        differs is read all the same, unless the answer's text has begun."""
        left = len(self._again) - self._thought_again
        if not delta.reasoning or not left:
            return delta
        new = ""
        if not self._begun:
            same = self._again.startswith(delta.reasoning[:left], self._thought_again)
            new = delta.reasoning[left if same else 0 :]
            self._thought_again += min(left, len(delta.reasoning)) if same else left
        return replace(delta, reasoning=new)

    def _lost(self, before: int) -> None:
        """Events up to that number are missing: have them sent again, and give up where they do not come."""
        loop = asyncio.get_running_loop()
        if self._gap is None:
            lost = NodeLost(f"the stream lost events {self._expected} to {before - 1}")
            self._gap = loop.call_later(MAX_GAP_S, self.fail, lost)
        elif time.monotonic() - self._asked_at < REPLAY_INTERVAL_S:
            return
        self.ask_again()

    def ask_again(self) -> None:
        """Have all that is missing sent once more, the end included: after the connection was lost."""
        if not self._over:
            self._asked_at = time.monotonic()
            self._ask_again(self._expected)

    def fail(self, error: OrchestraError) -> None:
        """End it with `error`, after what has arrived; nothing is taken any more."""
        self._over = True
        self.arrived.put_nowait(error)

    def hand_over(self, quiet_s: float, attempt: int = 0) -> StreamPosition:
        """What was read so far, and the writer that may go on, which has delivery `attempt` of the work.
        Where a later one goes on already, the earlier is superseded: two that have the same work, as after
        NATS was away, would else take it from each other again and again.

        With `quiet_s` above 0 a writer heard of within that time is left alone, and one that was not heard of
        at all keeps its chance: it and the next one are rivals.
        """
        if self._over:
            return StreamPosition(open=False)
        if self._superseded(attempt):
            return StreamPosition(superseded=True)
        if quiet_s:
            if time.monotonic() - self._heard_at < quiet_s:
                return StreamPosition(alive=True)
            if self._expected == 0 and self._gap is None and not self._handed_over:
                self._holder = max(self._holder, attempt)
                return StreamPosition()
        self.close()
        self._holder = max(self._holder, attempt)
        self._handed_over, self._second, self._on_first = True, "", None
        self._taken_over_at = self._expected
        self._heard_at = time.monotonic()
        self._writer = token_hex(4)
        self._again, self._thought_again = "".join(self._reasoning), 0
        self._begun = any(self._text)
        return StreamPosition(
            text="".join(self._text), tokens=self._tokens, seq=self._expected, writer=self._writer
        )

    def _superseded(self, attempt: int) -> bool:
        return 0 < attempt < self._holder

    def peek(self, quiet_s: float, attempt: int = 0) -> StreamPosition:
        """Whether the writer was heard of within that time, and the number of its events; changes nothing."""
        return StreamPosition(
            open=not self._over,
            alive=time.monotonic() - self._heard_at < quiet_s,
            superseded=self._superseded(attempt),
            seq=self._expected - self._taken_over_at,
        )

    def race(self, on_first: Callable[[str], None]) -> StreamPosition:
        """Let a second writer begin too, whose name is in the answer, unless there is something to read.

        `on_first` hears who came first: that one is read, and the other is given up.
        """
        if self._over:
            return StreamPosition(open=False)
        if self._writer is not None or self._on_first is not None:
            return StreamPosition(alive=True)
        self._second, self._on_first = token_hex(4), on_first
        return StreamPosition(writer=self._second)

    def close(self) -> None:
        if self.acceptance is not None:
            self.acceptance.cancel()
            self.acceptance = None
        for timer in (self._silence, self._gap):
            if timer is not None:
                timer.cancel()
        self._silence = self._gap = None

    def _is_alive(self, writer: str) -> bool:
        """Note a sign of life; False where it comes from a writer that was given up."""
        if self._writer is None or self._writer == writer:
            self.accepted = True
            self._heard_at = time.monotonic()
            return True
        return not self._handed_over

    def _is_from_rival(self, writer: str) -> bool:
        """Whether another than the writer that counts sent it; where that one has fallen silent, fail."""
        if self._writer is None or self._writer == writer:
            self._writer, self._heard_at = writer, time.monotonic()
            if self._on_first is not None:
                self._end_race(writer)
            return False
        if self._silence is None and not self._handed_over:
            loop = asyncio.get_running_loop()
            self._silence = loop.call_later(MAX_SILENCE_S, self._check_silence)
        return True

    def _end_race(self, winner: str) -> None:
        on_first, self._on_first, self._second = self._on_first, None, ""
        self._handed_over = True  # whoever else writes is told to stop
        if on_first is not None:
            on_first(winner)

    def _check_silence(self) -> None:
        left = self._heard_at + MAX_SILENCE_S - time.monotonic()
        if left > 0:
            self._silence = asyncio.get_running_loop().call_later(left, self._check_silence)
        else:
            self.fail(NodeLost("the node that wrote the answer was lost, after some of it was read"))
