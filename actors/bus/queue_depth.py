"""The depth and the age of the queues, and how near streams and consumers are to their limits.

`read_depth` of `depth_reader.py` makes these. It is the one place that counts what waits; `orchestra status`,
the metrics and the admin API all show it:

- *waiting*: messages that were stored and that nobody works on: those that were never delivered, and the
  generations that a dispatcher has taken ahead and not yet given to a node. Letters in DEAD wait for a
  person. Events in LOGS wait to be shipped to MongoDB; where nothing ever was shipped none waits.
- *in progress*: messages that were delivered and are not acknowledged, without those that wait at a
  dispatcher. A message that was returned for a later attempt (a job between two attempts, a webhook call that
  failed) is in progress until it is delivered again: the server does not tell the two apart.
- *oldest age*: the time since the oldest waiting message was stored.

Generations that go straight to a node are on no queue and in none of these numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestration.priority import Priority

QUEUES = ("RUNS", "GENERATIONS", "WEBHOOKS", "DEAD", "LOGS")
"""The streams that are queues, in the order in which they are shown."""
DEAD = "DEAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDepth:
    """What a stream or the stream of a bucket holds, against its limits. A limit of 0 means: none."""

    name: str
    messages: int
    bytes: int
    max_messages: int
    max_bytes: int
    fullest_subject: int
    """Messages on the subject with the most; 0 when the stream has no limit per subject."""
    max_per_subject: int
    refuses: bool
    """Whether the full stream refuses messages. Otherwise it evicts its oldest, as caches do."""
    first_at: float | None
    """Unix time in seconds at which the oldest message was stored; None: it is empty."""
    replicas_missing: int = 0
    """Replicas on servers that are away or behind; with a majority of them the stream takes no messages."""

    @property
    def fullness(self) -> float:
        """The share that is used of the limit that is nearest, from 0 to 1."""
        used = (
            (self.messages, self.max_messages),
            (self.bytes, self.max_bytes),
            (self.fullest_subject, self.max_per_subject),
        )
        return max((value / limit for value, limit in used if limit), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerDepth:
    """How many messages a consumer has delivered that are not acknowledged, against its limit."""

    name: str
    queue: str
    """Name of the stream."""
    priority: str
    model: str
    ack_pending: int
    max_ack_pending: int
    """0: no limit."""
    redelivered: int
    """Messages in progress that were delivered more than once."""

    @property
    def fullness(self) -> float:
        """The share of the limit that is used, from 0 to 1."""
        return self.ack_pending / self.max_ack_pending if self.max_ack_pending else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """One part of a queue. The module's docstring defines the numbers."""

    queue: str
    """Name of the stream."""
    priority: str = ""
    """'' where a queue has no priorities."""
    model: str = ""
    """'' where a queue is not divided by models."""
    waiting: int = 0
    in_progress: int = 0
    oldest_at: float | None = None
    """Unix time in seconds at which the oldest waiting message was stored; None: none waits, or it
    was not read because very many models wait."""

    def age_s(self, now: float) -> float:
        """Age in seconds of the oldest waiting message at the Unix time `now`; 0 when none waits."""
        return 0.0 if self.oldest_at is None else max(0.0, now - self.oldest_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDepth:
    """All queues, streams and consumers at one moment."""

    at: float
    """Unix time in seconds."""
    parts: tuple[QueueDepth, ...]
    """Of RUNS one per priority, of GENERATIONS one per priority and model with messages, of others one."""
    streams: tuple[StreamDepth, ...]
    consumers: tuple[ConsumerDepth, ...]

    def by_priority(self) -> list[QueueDepth]:
        """The parts with models added up, in the order of `QUEUES` and priorities."""
        return [_total(group) for group in _groups(self.parts)]

    def waiting(self, queue: str) -> int:
        """Number of waiting messages of a whole queue."""
        return sum(part.waiting for part in self.parts if part.queue == queue)

    def in_progress(self, queue: str) -> int:
        return sum(part.in_progress for part in self.parts if part.queue == queue)

    def age_s(self, queue: str) -> float:
        """Age in seconds of the oldest waiting message of a whole queue; 0 when none waits."""
        return max((part.age_s(self.at) for part in self.parts if part.queue == queue), default=0.0)


def _groups(parts: Sequence[QueueDepth]) -> Iterator[list[QueueDepth]]:
    """The parts of each queue and priority; queues with priorities have all of them."""
    empty = [QueueDepth(queue=queue, priority=priority) for queue in QUEUES[:2] for priority in Priority]
    empty += [QueueDepth(queue=queue) for queue in QUEUES[2:]]
    for each in empty:
        yield [each, *(part for part in parts if (part.queue, part.priority) == (each.queue, each.priority))]


def _total(group: Sequence[QueueDepth]) -> QueueDepth:
    return replace(
        group[0],
        waiting=sum(part.waiting for part in group),
        in_progress=sum(part.in_progress for part in group),
        oldest_at=min((part.oldest_at for part in group if part.oldest_at is not None), default=None),
    )
