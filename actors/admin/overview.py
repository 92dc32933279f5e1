"""The state of a whole cluster at one moment, for `orchestra status`, `orchestra top` and the dashboard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from actors.admin.metric_rates import Rates, Reading
from actors.admin.overview_rows import (
    Overview,
    model_rows,
    node_row,
    process_row,
    queue_rows,
    traffic_of,
)
from actors.bus.bus import Bus
from actors.bus.depth_reader import read_depth
from actors.bus.nats_servers import ServerRows, servers_of
from actors.bus.queue_depth import ClusterDepth
from actors.cluster.orders import Orders, read_orders
from actors.cluster.registry import live_nodes
from actors.runtime.processes import ProcessInfo, list_processes, metrics_of
from orchestration.errors import OrchestraError
from orchestration.messages import NodeInfo

IN_FLIGHT = "orchestra_gateway_active"
FULL = 0.8
"""Share of a limit from which on a stream is mentioned."""
OLD_S = 30.0
"""Age in seconds from which on a waiting message is mentioned."""
MAX_PROCESSES = 200
"""Maximum number of processes whose metrics are read for one overview."""
TOGETHER = 16
"""Metrics that are read at once."""


class OverviewReader:
    """Reads overviews. The first has no rates, since these need two readings of the metrics."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._last: Reading | None = None

    async def read(self, *, with_metrics: bool = True) -> Overview:
        """Read the cluster now. Raises `BusUnavailable`, `DeadlineExceeded`."""
        nodes, processes, depth, servers, orders = await asyncio.gather(
            live_nodes(self.bus),
            list_processes(self.bus),
            read_depth(self.bus),
            servers_of(self.bus),
            read_orders(self.bus),
        )
        reading = rates = None
        if with_metrics:
            reading = await self._metrics(processes)
            rates = None if self._last is None else Rates(self._last, reading)
            self._last = reading
        now = time.time()
        return Overview(
            at=now,
            nats_url=self.bus.settings.url,
            warnings=(*warnings_of(nodes, processes, depth, servers), *order_lines(orders)),
            traffic=None if rates is None else traffic_of(rates),
            in_flight=None if reading is None else round(reading.total(IN_FLIGHT)),
            nodes=tuple(node_row(node, now) for node in nodes),
            models=tuple(model_rows(nodes, depth, rates)),
            queues=tuple(queue_rows(depth)),
            processes=tuple(process_row(each, now, reading, rates) for each in processes),
            nats=servers,
        )

    async def _metrics(self, processes: list[ProcessInfo]) -> Reading:
        gate = asyncio.Semaphore(TOGETHER)
        texts: dict[str, str] = {}

        async def fetch(process: str) -> None:
            async with gate:
                try:
                    texts[process] = (await metrics_of(self.bus, process)).decode()
                except OrchestraError:  # it has just ended
                    return

        await asyncio.gather(*(fetch(each.id) for each in processes[:MAX_PROCESSES]))
        return await asyncio.to_thread(Reading.parse, time.monotonic(), texts)


def order_lines(orders: Orders) -> list[str]:
    """One line for each standing order: someone has to take it back."""
    kinds = (
        ("queue {} is paused", orders.paused),
        ("the breaker of {} is held open", orders.open_breakers),
        ("pattern {} is disabled", orders.disabled_patterns),
    )
    return [
        f"{text.format(name)} {order.text}" for text, named in kinds for name, order in sorted(named.items())
    ]


def warnings_of(
    nodes: Sequence[NodeInfo], processes: Sequence[ProcessInfo], depth: ClusterDepth, servers: ServerRows
) -> tuple[str, ...]:
    """What a person should look at, the most urgent first."""
    found: list[str] = []
    working = [node for node in nodes if not node.draining]
    if not working:
        found.append("no node takes work; start one: orchestra node --backend onnx")
    missing = [role for role in ("gateway", "dispatcher", "agents") if not _has_role(processes, role)]
    found += [f"no {role} is running; start one: orchestra {role}" for role in missing]
    found += [f"NATS server {each.name} is offline" for each in servers.servers if each.offline]
    served = {card.name for node in working for card in node.models}
    for part in depth.parts:
        if part.model and part.model not in served and part.waiting:
            found.append(f"no node serves {part.model}, and its queue has {part.waiting} waiting")
        elif part.age_s(depth.at) >= OLD_S and part.queue != "DEAD":
            where = " ".join(word for word in (part.queue, part.priority, part.model) if word)
            age = f"{part.age_s(depth.at):.0f} s"
            found.append(f"the oldest of {part.waiting} waiting messages of {where} is {age} old")
    if dead := depth.waiting("DEAD"):
        found.append(f"{dead} dead letters; see them: orchestra jobs dead list")
    for stream in depth.streams:
        if stream.refuses and stream.fullness >= FULL:
            found.append(f"stream {stream.name} is {stream.fullness:.0%} full")
    for consumer in depth.consumers:
        if consumer.ack_pending >= consumer.max_ack_pending > 0:
            found.append(f"consumer {consumer.name} is at its limit of {consumer.max_ack_pending} messages")
    for node in nodes:
        found += [f"node {node.id} does not serve {model}: {why}" for model, why in node.left_out.items()]
    versions = sorted({process.version for process in processes})
    if len(versions) > 1:
        found.append(f"processes of several versions: {', '.join(versions)}")
    return tuple(found)


def _has_role(processes: Sequence[ProcessInfo], role: str) -> bool:
    return any(role in process.roles for process in processes)
