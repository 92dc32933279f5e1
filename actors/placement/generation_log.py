"""The events of model calls in the log: how each ended, and when one moved or was hedged."""

from __future__ import annotations

import time
from typing import Any

from actors.placement.job import Job
from actors.telemetry.event_log import event_log
from actors.telemetry.redaction import error_text
from actors.telemetry.tracing import trace_id
from orchestration.errors import NodeBusy, OrchestraError, from_body
from orchestration.log_events import LogLevel
from orchestration.messages import GenerationEnd
from orchestration.placement.breaker import State
from orchestration.placement.replica import Replica


def record_answered(job: Job, node: str, ended: GenerationEnd, sent_at: float) -> None:
    """Record the end that a node wrote. `sent_at` is when it got the generation, by the monotonic clock."""
    if not event_log.enabled:
        return
    usage, error = ended.finish.usage, ended.error
    outcome = error.code if error is not None else "ok"
    data = {
        "outcome": outcome,
        "duration_s": round(time.monotonic() - sent_at, 6),
        "queue_s": round(job.queued_s + max(0.0, job.first_sent_at - job.received_at), 6),
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "finish_reason": ended.finish.reason,
        "moves": job.moves,
    }
    if ended.load_s:
        data["load_s"] = round(ended.load_s, 6)
    if job.reader.first_text_s:
        data["time_to_first_token_s"] = job.reader.first_text_s
    if job.moves:
        data["lost_s"] = round(max(0.0, sent_at - job.first_sent_at), 6)
    if usage.estimated:
        data["estimated"] = True
    if error is not None:
        data["error_text"] = error_text(from_body(error))[:500]
    tokens = f"{usage.prompt_tokens} tokens read, {usage.completion_tokens} written"
    message = f"{job.model} on {node}: {outcome} after {data['duration_s']:.3f} s, {tokens}"
    _record("generation.ended", job, node, message, data, failed=error is not None)


def record_failed(job: Job, node: str, error: OrchestraError) -> None:
    """Record that a generation ended without a node's end: no node is left, or its caller left."""
    if not event_log.enabled:
        return
    data = {"outcome": error.code, "moves": job.moves, "error_text": error_text(error)[:500]}
    data["duration_s"] = round(time.monotonic() - job.received_at, 6)
    failed = error.status >= 500
    _record("generation.ended", job, node, f"{job.model} on {node}: {error.code}", data, failed=failed)


def record_unplaced(job: Job, error: OrchestraError) -> None:
    """Record that a generation ended while it waited for a node: at its deadline, or because its caller left
    or an operator purged its queue. Its wait is over at its deadline, whenever that is found."""
    if not event_log.enabled:
        return
    late_s = max(0.0, time.time() - job.envelope.deadline) if job.envelope.deadline else 0.0
    waited_s = job.queued_s + (job.first_sent_at or time.monotonic() - late_s) - job.received_at
    data = {"outcome": error.code, "moves": job.moves, "queue_s": round(max(0.0, waited_s), 6)}
    data |= {"duration_s": 0.0, "error_text": error_text(error)[:500]}
    message = f"{job.model}: {error.code} after a wait of {data['queue_s']:.3f} s for a node"
    _record("generation.ended", job, "", message, data, failed=error.status >= 500)


def record_moved(job: Job, node: str, error: OrchestraError) -> None:
    """Record that a generation leaves `node`: it failed or died (moved), or had no room (refused).
    Once for each node and reason: probes of a dead node repeat."""
    if not event_log.enabled or (node, error.code) in job.recorded_moves:
        return
    job.recorded_moves.add((node, error.code))
    busy = isinstance(error, NodeBusy)
    name = "generation.refused" if busy else "generation.moved"
    message = f"{job.model} {'is refused by' if busy else 'moves away from'} {node}: {error.code}"
    _record(name, job, node, message, {"reason": error.code, "moves": job.moves}, failed=not busy)


def record_hedged(job: Job, nodes: tuple[str, str], outcome: str) -> None:
    """Record that a generation was late on the first node and sent to the second as well."""
    if not event_log.enabled:
        return
    first, second = nodes
    message = f"{job.model} was late on {first} and also sent to {second}, which {outcome}"
    _record("generation.hedged", job, second, message, {"first_node": first, "outcome": outcome})


def record_breaker(replica: Replica, state: State) -> None:
    """Record that the breaker of a model on a node is open, half-open or closed now, in this process."""
    name = state.value.replace("-", "_")
    opened = {"open": "opened"}.get(name, name)
    event_log.record(
        f"breaker.{opened}",
        level=LogLevel.WARNING if state is State.OPEN else LogLevel.INFO,
        model=replica.card.name,
        node=replica.id,
        message=f"the breaker of {replica.card.name} on {replica.id} is {state.value}",
    )


def _record(
    name: str, job: Job, node: str, message: str, data: dict[str, Any], *, failed: bool = False
) -> None:
    envelope = job.envelope
    event_log.record(
        name,
        level=LogLevel.WARNING if failed else LogLevel.INFO,
        run=envelope.run or job.id.partition("-")[0],
        trace=trace_id(envelope.trace),
        caller=envelope.caller,
        pattern=envelope.pattern,
        model=job.model,
        node=node,
        message=message,
        data=data | {"generation": job.id},
    )
