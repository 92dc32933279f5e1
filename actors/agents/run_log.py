"""The events of runs and their steps in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.telemetry.event_log import event_log
from actors.telemetry.redaction import error_text
from actors.telemetry.tracing import trace_id
from orchestration.errors import from_body
from orchestration.log_events import LogLevel
from orchestration.messages import End, RunEnd, Step, Usage

if TYPE_CHECKING:
    from actors.agents.coordinator import RunExecution
    from actors.runtime.envelope import Envelope

RETRY = 1_000
"""The ordinals of a job that an operator has queued again begin at a multiple of this."""


def tokens_of(usage: Usage) -> dict[str, int]:
    """The tokens of an event."""
    tokens = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
    }
    return tokens | {"estimated": True} if usage.estimated else tokens


def record_started(execution: RunExecution) -> None:
    """Record that a coordinator begins a run or a job, or goes on with it."""
    if not event_log.enabled:
        return
    attempt = execution.run_events.attempt
    what = execution.pattern or "job"
    event_log.record(
        "run.started" if attempt == 1 else "run.resumed",
        ordinal=execution.ordinal,
        message=f"{what} started" if attempt == 1 else f"{what} goes on, attempt {attempt}",
        data={"attempt": attempt, "known_steps": len(execution.known)},
        **_fields(execution),
    )


def record_ended(execution: RunExecution, ended: End, duration_s: float) -> None:
    """Record the end of a run or a job."""
    if not event_log.enabled:
        return
    finish = ended.finish
    outcome = {"cancelled": "cancelled", "error": "failed"}.get(finish.reason, "ended")
    if ended.error is not None and outcome == "ended":
        outcome = "failed"
    data: dict[str, Any] = {"duration_s": round(duration_s, 6), "finish_reason": finish.reason}
    data |= tokens_of(finish.usage)
    if isinstance(ended, RunEnd):
        data["steps"] = len(ended.steps)
    error = ""
    if ended.error is not None:
        data |= {"error": ended.error.code, "error_text": error_text(from_body(ended.error))[:500]}
        error = f" ({ended.error.code})"
    what = execution.pattern or "job"
    tokens = f"{finish.usage.prompt_tokens} tokens read, {finish.usage.completion_tokens} written"
    event_log.record(
        f"run.{outcome}",
        ordinal=execution.ordinal,
        level=LogLevel.ERROR if outcome == "failed" else LogLevel.INFO,
        message=f"{what} {outcome}{error} after {duration_s:.3f} s, {tokens}",
        data=data,
        **_fields(execution) | {"model": finish.model, "node": finish.node},
    )


def record_step(run: str, step: Step, envelope: Envelope) -> None:
    """Record the end of a step. A coordinator that goes on with a run may tell it again, as the same fact."""
    if not event_log.enabled:
        return
    outcome = step.error.code if step.error else "stopped" if step.discarded else "ended"
    data: dict[str, Any] = {
        "agent": step.agent,
        "outcome": outcome,
        "finish_reason": step.finish_reason,
        "duration_s": round(step.seconds, 6),
    }
    data |= tokens_of(step.usage)
    if step.tool:
        data["tool"] = step.tool
    tokens = f"{step.usage.prompt_tokens} tokens read, {step.usage.completion_tokens} written"
    doing = f"{step.agent} used {step.tool}" if step.tool else f"{step.agent} wrote"
    event_log.record(
        "step.ended",
        ordinal=0,
        level=LogLevel.WARNING if step.error else LogLevel.INFO,
        run=run,
        step=step.name,
        trace=trace_id(envelope.trace),
        caller=envelope.caller,
        pattern=envelope.pattern,
        model=step.model,
        node=step.node,
        message=f"{doing}: {outcome} after {step.seconds:.3f} s, {tokens}",
        data=data,
    )


def _fields(execution: RunExecution) -> dict[str, Any]:
    work, envelope = execution.work, execution.envelope
    model = work.model or ""
    return {
        "run": work.id,
        "trace": trace_id(envelope.trace),
        "caller": envelope.caller,
        "pattern": execution.pattern,
        "model": model,
    }
