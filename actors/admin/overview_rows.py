"""The parts of an overview: what a person wants to know of each node, model, queue and process."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from actors.admin.metric_rates import Rates, Reading
from actors.bus.nats_servers import ServerRows
from actors.bus.queue_depth import ClusterDepth
from actors.runtime.processes import ProcessInfo
from orchestration.messages import MemoryUse, NodeInfo
from orchestration.wire import Wire

FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"
GENERATIONS = "gen_ai_server_request_duration_seconds"
TOKENS = "orchestra_node_tokens_total"
REQUESTS = "orchestra_gateway_requests_total"
GENERATION_QUEUE = "GENERATIONS"
QUIET_OUTCOMES = ("stop", "length", "tool_calls", "cancelled")
"""Outcomes of generations that are no errors."""


class Traffic(Wire):
    """What passed between two readings of the metrics; None where there is nothing to measure."""

    requests_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    first_token_p50_s: float | None = None
    first_token_p95_s: float | None = None
    error_share: float | None = None
    """Share of the requests or generations that failed, without those that their callers cancelled."""


class NodeRow(Wire):
    """A node."""

    id: str
    state: str
    """`serving` or `draining`."""
    backend: str
    models: tuple[str, ...]
    """Models in memory."""
    offered: tuple[str, ...] = ()
    """Models that are loaded on request."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Models that it should serve and cannot load, with the reason."""
    running: int
    slots: int
    models_bytes: int = 0
    """Memory of the models in it."""
    memory: MemoryUse = MemoryUse()
    """Limit of that memory, and how often models were loaded and unloaded for it."""
    cores: int = 0
    memory_bytes: int = 0
    provider: str = ""
    accelerators: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    uptime_s: float = 0.0


class ServedModelRow(Wire):
    """A model, on all nodes."""

    name: str
    kind: str
    nodes: int
    """Nodes that serve or offer it."""
    loaded: int
    """Nodes that have it in memory."""
    running: int
    """Generations in progress on these nodes, of all their models."""
    slots: int
    waiting: int = 0
    oldest_s: float = 0.0
    """Age in seconds of its oldest queued generation."""
    traffic: Traffic | None = None


class QueueRow(Wire):
    """A queue, or one priority of it."""

    queue: str
    priority: str = ""
    waiting: int
    in_progress: int
    oldest_s: float


class ProcessRow(Wire):
    """A process and what it uses."""

    id: str
    role: str
    host: str
    version: str
    uptime_s: float
    url: str = ""
    """Where it serves its metrics."""
    memory_bytes: float | None = None
    cpu_share: float | None = None
    """CPU time per second, 1 for a whole core."""
    loop_lag_p95_s: float | None = None


class Overview(Wire):
    """A cluster at one moment."""

    at: float
    """Unix time in seconds."""
    nats_url: str
    warnings: tuple[str, ...] = ()
    """What a person should look at, the most urgent first."""
    traffic: Traffic | None = None
    """None until the metrics were read twice."""
    in_flight: int | None = None
    """Requests in flight at all gateways; None: the metrics were not read."""
    nodes: tuple[NodeRow, ...]
    models: tuple[ServedModelRow, ...]
    queues: tuple[QueueRow, ...]
    processes: tuple[ProcessRow, ...]
    nats: ServerRows


def node_row(node: NodeInfo, now: float) -> NodeRow:
    """The row of a node."""
    return NodeRow(
        id=node.id,
        state="draining" if node.draining else "serving",
        backend=node.backend,
        models=tuple(card.name for card in node.models if card.loaded),
        offered=tuple(card.name for card in node.models if not card.loaded),
        left_out=node.left_out,
        running=node.running,
        slots=node.slots,
        models_bytes=sum(card.memory_bytes for card in node.models if card.loaded),
        memory=node.memory,
        cores=node.hardware.cores,
        memory_bytes=node.hardware.memory_bytes,
        provider=node.hardware.provider,
        accelerators=node.hardware.accelerators,
        labels=node.labels,
        uptime_s=max(0.0, now - node.started_at),
    )


def model_rows(nodes: Sequence[NodeInfo], depth: ClusterDepth, rates: Rates | None) -> list[ServedModelRow]:
    """A row for each model that a node serves, or that has waiting generations."""
    waiting = [part for part in depth.parts if part.queue == GENERATION_QUEUE and part.model]
    cards = {card.name: card for node in nodes for card in node.models}
    rows = []
    for name in sorted(cards.keys() | {part.model for part in waiting}):
        serving = [node for node in nodes if node.serves(name) and not node.draining]
        parts = [part for part in waiting if part.model == name]
        row = ServedModelRow(
            name=name,
            kind=cards[name].kind if name in cards else "",
            nodes=len(serving),
            loaded=sum(card.name == name and card.loaded for node in serving for card in node.models),
            running=sum(node.running for node in serving),
            slots=sum(node.slots for node in serving),
            waiting=sum(part.waiting for part in parts),
            oldest_s=max((part.age_s(depth.at) for part in parts), default=0.0),
            traffic=None if rates is None else _model_traffic(rates, name),
        )
        rows.append(row)
    return rows


def queue_rows(depth: ClusterDepth) -> list[QueueRow]:
    """A row for each priority of a queue."""
    return [
        QueueRow(
            queue=part.queue,
            priority=part.priority,
            waiting=part.waiting,
            in_progress=part.in_progress,
            oldest_s=part.age_s(depth.at),
        )
        for part in depth.by_priority()
    ]


def process_row(info: ProcessInfo, now: float, reading: Reading | None, rates: Rates | None) -> ProcessRow:
    """The row of a process."""
    own = None if reading is None or info.id not in reading.processes else reading.only(info.id)
    mine = None if rates is None else rates.only(info.id)
    return ProcessRow(
        id=info.id,
        role=info.role,
        host=info.host,
        version=info.version,
        uptime_s=max(0.0, now - info.started_at),
        url=info.metrics_url,
        memory_bytes=None if own is None else own.total("process_resident_memory_bytes"),
        cpu_share=None if mine is None else mine.per_second("process_cpu_seconds_total"),
        loop_lag_p95_s=None if mine is None else mine.quantile(0.95, "orchestra_event_loop_lag_seconds"),
    )


def traffic_of(rates: Rates) -> Traffic:
    """The traffic at all gateways."""
    requests = rates.by(REQUESTS, "status")
    total = sum(requests.values())
    failed = sum(count for status, count in requests.items() if status.startswith("5"))
    return Traffic(
        requests_per_s=total / rates.seconds,
        output_tokens_per_s=rates.per_second(TOKENS, direction="completion"),
        first_token_p50_s=rates.quantile(0.5, FIRST_TOKEN),
        first_token_p95_s=rates.quantile(0.95, FIRST_TOKEN),
        error_share=failed / total if total else None,
    )


def _model_traffic(rates: Rates, model: str) -> Traffic:
    outcomes = rates.by(f"{GENERATIONS}_count", "outcome", model=model)
    total = sum(outcomes.values())
    failed = sum(count for outcome, count in outcomes.items() if outcome not in QUIET_OUTCOMES)
    return Traffic(
        requests_per_s=total / rates.seconds,
        output_tokens_per_s=rates.per_second(TOKENS, model=model, direction="completion"),
        first_token_p50_s=rates.quantile(0.5, FIRST_TOKEN, model=model),
        first_token_p95_s=rates.quantile(0.95, FIRST_TOKEN, model=model),
        error_share=failed / total if total else None,
    )
