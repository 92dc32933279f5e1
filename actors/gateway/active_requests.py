"""The requests that a gateway has accepted and not yet answered, and what each of them waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.streams.client import StreamClient

WAITING_STAGES = ("admission", "cache", "queue", "node")
STREAMING = "streaming"
STAGES = (*WAITING_STAGES, STREAMING)


@runtime_checkable
class RequestsOnNodes(Protocol):
    """What knows which generations are at a node, or on their way to one: see `DirectPath`."""

    def is_placed(self, work_id: str) -> bool: ...


class ActiveRequests:
    """The active requests of one gateway, by the id of their work.

    Requests cost an entry of a dictionary; what each waits for is found out at a scrape, of all of them at
    one moment. So the counts by stage always add up, and nothing is left of a request that has ended.
    """

    def __init__(self, streams: StreamClient, placed: RequestsOnNodes | None = None) -> None:
        self._streams = streams
        self._placed = placed
        self._stages: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._stages)

    @contextmanager
    def request(self, work_id: str) -> Iterator[None]:
        """A request is active while the block runs."""
        self._stages[work_id] = "admission"
        try:
            yield
        finally:
            del self._stages[work_id]

    def admitted(self, work_id: str) -> None:
        """The request is within the limits."""
        if work_id in self._stages:
            self._stages[work_id] = "cache"

    def streaming(self, work_id: str) -> None:
        """Its first event has come."""
        if work_id in self._stages:
            self._stages[work_id] = STREAMING

    def counts(self) -> Mapping[str, int]:
        """The number of requests by stage, every stage included."""
        found = dict.fromkeys(STAGES, 0)
        for work_id, stage in self._stages.items():
            if stage == "cache" and work_id in self._streams.readers:
                at_node = self._placed is not None and self._placed.is_placed(work_id)
                stage = "node" if at_node else "queue"
            found[stage] += 1
        return found


class RequestStages(Collector):
    """The active requests of this process by stage, as they are at a scrape."""

    def __init__(self) -> None:
        self.active: list[ActiveRequests] = []
        """Of the gateways that run."""

    def collect(self) -> Iterable[Metric]:
        total = GaugeMetricFamily(
            "orchestra_gateway_active",
            "Requests for answers of models and patterns that were accepted and have not ended; the sum of "
            "orchestra_gateway_stage over all stages",
        )
        stages = GaugeMetricFamily(
            "orchestra_gateway_stage",
            "Active requests by what they wait for: admission (the body and the limits), cache (the shared "
            "cache or an equal request), queue (a node, in the durable queue), node (the first token of the "
            "node that has it); streaming ones have begun",
            labels=["stage"],
        )
        sums = dict.fromkeys(STAGES, 0)
        for active in self.active:
            for stage, count in active.counts().items():
                sums[stage] += count
        total.add_metric([], sum(sums.values()))
        for stage, count in sums.items():
            stages.add_metric([stage], count)
        yield total
        yield stages


request_stages = RequestStages()
REGISTRY.register(request_stages)
