"""The generations that dispatchers have taken from a queue and that still wait there for a node.

JetStream counts them as delivered, so whoever counts what waits has to ask the dispatchers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import Field, ValidationError

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.subjects import HELD_SUBJECT, GenerationQueue
from orchestration.priority import Priority
from orchestration.wire import Wire

log = logging.getLogger(__name__)

ANSWER_S = 0.3
"""Time to wait for dispatchers, which answer within milliseconds. Each says how many there are, so only a
dead one makes a reader wait for so long."""
MAX_QUEUES = 2_000
"""Maximum number of queues in one answer, the fullest first."""


class HeldQueue(Wire):
    """The generations of one queue that wait at a dispatcher."""

    priority: Priority
    model: str
    count: int = Field(ge=0)
    oldest_at: float
    """Unix time in seconds at which the oldest of them was stored."""


class HeldReport(Wire):
    """The answer of one dispatcher."""

    dispatcher: str
    dispatchers: int = Field(ge=1)
    """The number of dispatchers that it knows of, itself included."""
    queues: tuple[HeldQueue, ...] = Field(default=(), max_length=MAX_QUEUES)


@dataclass(slots=True)
class _Tally:
    count: int = 0
    oldest_at: float = float("inf")

    def add(self, count: int, oldest_at: float) -> None:
        self.count += count
        self.oldest_at = min(self.oldest_at, oldest_at)


Waiting = tuple[GenerationQueue, float]
"""The queue of a generation that waits at a dispatcher, and the Unix time at which it was stored."""


class HeldResponder:
    """Answers for one dispatcher. `waiting` returns its waiting generations, `dispatchers` their number."""

    def __init__(
        self, bus: Bus, name: str, waiting: Callable[[], Iterable[Waiting]], dispatchers: Callable[[], int]
    ) -> None:
        self.bus = bus
        self.name = name
        self._waiting = waiting
        self._dispatchers = dispatchers
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(HELD_SUBJECT, self._answer)

    async def stop(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def report(self) -> HeldReport:
        """What waits here now."""
        tallies: dict[GenerationQueue, _Tally] = {}
        for queue, stored_at in self._waiting():
            tallies.setdefault(queue, _Tally()).add(1, stored_at)
        fullest = sorted(tallies.items(), key=lambda item: -item[1].count)[:MAX_QUEUES]
        queues = tuple(
            HeldQueue(priority=queue.priority, model=queue.model, count=each.count, oldest_at=each.oldest_at)
            for queue, each in fullest
        )
        return HeldReport(dispatcher=self.name, dispatchers=self._dispatchers(), queues=queues)

    def _answer(self, message: Message) -> None:
        self.bus.answer(message, self.report().model_dump_json().encode())


async def held_generations(bus: Bus, *, within_s: float = ANSWER_S) -> dict[GenerationQueue, HeldQueue]:
    """The generations that wait at dispatchers, by queue. Dispatchers that do not answer in time are left
    out."""
    reports: dict[str, HeldReport] = {}
    done = asyncio.Event()

    def on_answer(message: Message) -> None:
        if message.status:  # nobody listens
            done.set()
            return
        try:
            report = HeldReport.model_validate_json(message.data)
        except ValidationError as error:
            log.debug("cannot read which generations wait at a dispatcher: %s", error)
            return
        reports[report.dispatcher] = report
        if len(reports) >= max(each.dispatchers for each in reports.values()):
            done.set()

    reply = bus.expect(on_answer)
    try:
        await bus.publish(HELD_SUBJECT, reply=reply)
        async with asyncio.timeout(within_s):
            await done.wait()
    except TimeoutError:
        log.debug("only %d dispatchers say what waits there", len(reports))
    finally:
        bus.forget(reply)
    return _by_queue(reports.values())


def _by_queue(reports: Iterable[HeldReport]) -> dict[GenerationQueue, HeldQueue]:
    found: dict[GenerationQueue, HeldQueue] = {}
    for report in reports:
        for each in report.queues:
            queue = GenerationQueue(each.priority, each.model)
            other = found.get(queue)
            if other is not None:
                each = each.model_copy(
                    update={
                        "count": each.count + other.count,
                        "oldest_at": min(each.oldest_at, other.oldest_at),
                    }
                )
            found[queue] = each
    return found
