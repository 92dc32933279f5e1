"""The table of operations: everything that clients can call, over HTTP, NATS or both.

`HttpApi` makes its routes of these rows, `OperationService` its NATS endpoints, and the generated reference
its pages. A new operation is a new row.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.bus.subjects import CHAT_SUBJECT
from actors.gateway.bodies import ChatBody, CompletionBody, EmbeddingBody
from actors.gateway.feedback import FeedbackApi
from actors.gateway.generations import GenerationRoutes
from actors.gateway.jobs_api import JobBody, JobId, JobsApi, ListJobs
from actors.gateway.operation import Access, Operation
from actors.gateway.run_events import RunEvents, RunId
from actors.gateway.status import ModelId, StatusRoutes
from actors.learning.feedback import Feedback


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What answers the operations of a gateway."""

    generations: GenerationRoutes
    jobs: JobsApi
    feedback: FeedbackApi
    run_events: RunEvents
    status: StatusRoutes


OPERATIONS: tuple[Operation[Services], ...] = (
    Operation(
        name="chat",
        summary='Chat with a model, or with a pattern: model "orchestra/maestro"',
        method="POST",
        path="/v1/chat/completions",
        subject=CHAT_SUBJECT,
        request=ChatBody,
        http_handler=lambda services: services.generations.chat,
    ),
    Operation(
        name="completion",
        summary="Continue plain text",
        method="POST",
        path="/v1/completions",
        request=CompletionBody,
        http_handler=lambda services: services.generations.completion,
    ),
    Operation(
        name="embedding",
        summary="Turn texts into vectors",
        method="POST",
        path="/v1/embeddings",
        request=EmbeddingBody,
        http_handler=lambda services: services.generations.embedding,
    ),
    Operation(
        name="jobs-submit",
        summary="Queue a chat and fetch its answer later",
        method="POST",
        path="/v1/jobs",
        subject="orchestra.jobs.submit",
        request=JobBody,
        raw=True,
        handler=lambda services: services.jobs.submit,
    ),
    Operation(
        name="jobs-list",
        summary="List jobs, the last changed first",
        method="GET",
        path="/v1/jobs",
        subject="orchestra.jobs.list",
        request=ListJobs,
        handler=lambda services: services.jobs.list_jobs,
    ),
    Operation(
        name="jobs-get",
        summary="A job and, once it has ended, its answer",
        method="GET",
        path="/v1/jobs/{id}",
        subject="orchestra.jobs.get",
        request=JobId,
        handler=lambda services: services.jobs.get,
    ),
    Operation(
        name="jobs-cancel",
        summary="Cancel a job",
        method="DELETE",
        path="/v1/jobs/{id}",
        subject="orchestra.jobs.cancel",
        request=JobId,
        handler=lambda services: services.jobs.cancel,
    ),
    Operation(
        name="run-events",
        summary="The events of a run, as server-sent events",
        method="GET",
        path="/v1/runs/{id}/events",
        request=RunId,
        http_handler=lambda services: services.run_events.stream,
    ),
    Operation(
        name="feedback",
        summary="Rate the answer of a run",
        method="POST",
        path="/v1/feedback",
        subject="orchestra.feedback",
        request=Feedback,
        max_bytes=16_384,
        handler=lambda services: services.feedback.give,
    ),
    Operation(
        name="models",
        summary="The models that can be asked now",
        method="GET",
        path="/v1/models",
        access=Access.OPTIONAL_KEY,
        handler=lambda services: services.status.models,
    ),
    Operation(
        name="model",
        summary="One model",
        method="GET",
        path="/v1/models/{model:path}",
        request=ModelId,
        access=Access.OPTIONAL_KEY,
        handler=lambda services: services.status.model,
    ),
    Operation(
        name="patterns",
        summary="The patterns, with the JSON schema of their settings",
        method="GET",
        path="/v1/patterns",
        handler=lambda services: services.status.patterns,
    ),
    Operation(
        name="healthz",
        summary="200 while this process runs",
        method="GET",
        path="/healthz",
        access=Access.OPEN,
        handler=lambda services: services.status.healthz,
    ),
    Operation(
        name="readyz",
        summary="200 while requests can be answered, else 503 with the reasons",
        method="GET",
        path="/readyz",
        access=Access.OPEN,
        handler=lambda services: services.status.readyz,
    ),
    Operation(
        name="metrics",
        summary="Metrics for Prometheus",
        method="GET",
        path="/metrics",
        access=Access.OPEN,
        handler=lambda services: services.status.metrics,
    ),
    Operation(
        name="index",
        summary="This page",
        method="GET",
        path="/",
        access=Access.OPEN,
        handler=lambda services: services.status.index,
    ),
)


def routes_text() -> str:
    """The HTTP routes, one per line."""
    width = max(len(operation.route) for operation in OPERATIONS)
    return "\n".join(f"{each.method:6} {each.route:{width}}  {each.summary}" for each in OPERATIONS)
