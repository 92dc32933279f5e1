"""A job as JSON, as callers see it: over HTTP, over NATS, in webhooks and in events."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from actors.jobs.records import JobRecord, JobResult, JobStatus
from actors.openai_api.chat import ChatEncoder
from orchestration.messages import ErrorBody, TextDelta


def job_summary(record: JobRecord) -> dict[str, Any]:
    """The job without its answer, as lists and events have it. `pattern` is null for a job of a model."""
    return {
        "id": record.id,
        "object": "job",
        "status": record.status.value,
        "model": record.model,
        "pattern": record.pattern or None,
        "priority": record.priority.value,
        "created": int(record.submitted_at),
        "changed": int(record.changed_at),
        "attempts": record.attempts,
        "retries": record.retry_number,
        "error": _error(record.last_error),
    } | ({"trace_id": record.trace_id} if record.trace_id else {})


def job_json(record: JobRecord, result: JobResult | None) -> dict[str, Any]:
    """The job; its `result` is a chat completion once it has succeeded.

    The status is that of `result`, if there is one: the record may not be updated yet.
    """
    shown = job_summary(record) | {"result": None}
    if result is None:
        return shown
    shown["status"] = result.status.value
    shown["error"] = _error(result.ended.error)
    if result.status is JobStatus.SUCCEEDED:
        encoder = ChatEncoder(
            record.id,
            record.model,
            int(result.finished_at),
            include_usage=False,
            logprobs=result.logprobs is not None,
        )
        encoder.notes = record.notes
        encoder.add(TextDelta(text=result.text, logprobs=result.logprobs, reasoning=result.reasoning))
        encoder.add(result.ended)
        shown["result"] = from_json(encoder.encode_full())
    return shown


def _error(error: ErrorBody | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"message": error.message, "code": error.code, "param": error.param}
