"""The metrics of queues, streams and consumers: those of the last reading, in the one process that reads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.bus.declarations import shipped_declaration
from actors.bus.queue_depth import ClusterDepth, ConsumerDepth, StreamDepth
from actors.telemetry.labels import MODELS
from orchestration.priority import Priority


class DepthMetrics(Collector):
    """Exports `depth`; nothing while it is None, so that only one process of the cluster exports it.

    Labels are the declared streams, the priorities, and models that the cluster knows: their number has a
    limit.
    """

    def __init__(self) -> None:
        self.depth: ClusterDepth | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing: another process may export it."""
        return ()

    def collect(self) -> Iterator[Metric]:
        depth = self.depth
        if depth is None:
            return
        yield from _queues(depth)
        yield from _models(depth)
        yield from _streams(depth.streams)
        yield from _consumers(depth.consumers)


def _queues(depth: ClusterDepth) -> Iterator[Metric]:
    labels = ["queue", "priority"]
    waiting = GaugeMetricFamily(
        "orchestra_queue_waiting", "Messages in a queue that nobody works on", labels=labels
    )
    progress = GaugeMetricFamily(
        "orchestra_queue_in_progress",
        "Messages of a queue that were delivered and are not acknowledged",
        labels=labels,
    )
    age = GaugeMetricFamily(
        "orchestra_queue_oldest_age_seconds",
        "Time in seconds since the oldest waiting message of a queue was stored; 0: none waits",
        labels=labels,
    )
    now = time.time()
    for part in depth.by_priority():
        values = [part.queue, part.priority]
        waiting.add_metric(values, part.waiting)
        progress.add_metric(values, part.in_progress)
        age.add_metric(values, part.age_s(now))
    yield from (waiting, progress, age)


def _models(depth: ClusterDepth) -> Iterator[Metric]:
    """Only of models with waiting generations, all priorities together."""
    waiting = GaugeMetricFamily(
        "orchestra_queue_model_waiting", "Generations of a model that wait for a node", labels=["model"]
    )
    age = GaugeMetricFamily(
        "orchestra_queue_model_oldest_age_seconds",
        "Time in seconds since the oldest waiting generation of a model was stored; of the models that may "
        "have waited longest",
        labels=["model"],
    )
    now = time.time()
    counts: dict[str, int] = {}
    ages: dict[str, float] = {}
    for part in depth.parts:
        if part.model and part.waiting:
            label = MODELS.known(part.model)
            counts[label] = counts.get(label, 0) + part.waiting
            if part.oldest_at is not None:
                ages[label] = max(ages.get(label, 0.0), part.age_s(now))
    for label, count in counts.items():
        waiting.add_metric([label], count)
    for label, seconds in ages.items():
        age.add_metric([label], seconds)
    yield from (waiting, age)


def _streams(streams: Iterable[StreamDepth]) -> Iterator[Metric]:
    stored = GaugeMetricFamily("orchestra_stream_bytes", "Bytes in a stream or bucket", labels=["stream"])
    max_bytes = GaugeMetricFamily(
        "orchestra_stream_limit_bytes", "Maximum bytes of a stream or bucket", labels=["stream"]
    )
    messages = GaugeMetricFamily(
        "orchestra_stream_messages", "Messages in a stream or bucket", labels=["stream"]
    )
    max_messages = GaugeMetricFamily(
        "orchestra_stream_limit_messages", "Maximum messages of a stream or bucket", labels=["stream"]
    )
    used = GaugeMetricFamily(
        "orchestra_stream_used_ratio",
        "Share of the nearest limit of a stream (bytes, messages, messages per subject); full, it `refuses` "
        "messages or `evicts` the oldest",
        labels=["stream", "full"],
    )
    missing = GaugeMetricFamily(
        "orchestra_stream_replicas_missing",
        "Replicas of a stream or bucket on servers that are away or behind",
        labels=["stream"],
    )
    declared = shipped_declaration().stream_names
    for each in streams:
        if each.name not in declared:
            continue
        stored.add_metric([each.name], each.bytes)
        messages.add_metric([each.name], each.messages)
        missing.add_metric([each.name], each.replicas_missing)
        if each.max_bytes:
            max_bytes.add_metric([each.name], each.max_bytes)
        if each.max_messages:
            max_messages.add_metric([each.name], each.max_messages)
        used.add_metric([each.name, "refuses" if each.refuses else "evicts"], each.fullness)
    yield from (stored, max_bytes, messages, max_messages, used, missing)


def _consumers(consumers: Iterable[ConsumerDepth]) -> Iterator[Metric]:
    """Of the generations there is a consumer per model: the one that is nearest to its limit counts."""
    labels = ["queue", "priority"]
    pending = GaugeMetricFamily(
        "orchestra_consumer_ack_pending",
        "Messages delivered and not acknowledged, of the queue's consumer that is nearest to its limit",
        labels=labels,
    )
    limit = GaugeMetricFamily(
        "orchestra_consumer_ack_pending_limit",
        "Maximum messages delivered and not acknowledged, of each consumer of the queue",
        labels=labels,
    )
    redelivered = GaugeMetricFamily(
        "orchestra_consumer_redelivered",
        "Messages in progress that were delivered more than once",
        labels=labels,
    )
    most, again = _declared_consumers(), dict.fromkeys(_declared_consumers(), 0)
    for each in consumers:
        key = (each.queue, each.priority)
        if key in most:
            again[key] += each.redelivered
            if each.max_ack_pending and each.fullness >= _share(most[key]):
                most[key] = (each.ack_pending, each.max_ack_pending)
    for key, (value, maximum) in most.items():
        pending.add_metric(key, value)
        limit.add_metric(key, maximum)
        redelivered.add_metric(key, again[key])
    yield from (pending, limit, redelivered)


def _share(pending: tuple[int, int]) -> float:
    return pending[0] / pending[1]


def _declared_consumers() -> dict[tuple[str, str], tuple[int, int]]:
    """No message in progress, and the limit, by queue and priority."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for stream in shipped_declaration().streams:
        for consumer in stream.consumers:
            priorities = [each.value for each in Priority] if "{priority}" in consumer.name else [""]
            found |= {(stream.name, priority): (0, consumer.max_ack_pending) for priority in priorities}
    return found
