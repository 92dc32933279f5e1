"""The table of operations: everything that clients can call, over HTTP, NATS or both.

`HttpApi` makes its routes of these rows, `OperationService` its NATS endpoints, and the generated reference
its pages. A new operation is a new row of two lines, which ruff leaves as they are.
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
from actors.gateway.status import ModelId, ProcessId, StatusRoutes
from actors.learning.feedback import Feedback


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What answers the operations of a gateway."""

    generations: GenerationRoutes
    jobs: JobsApi
    feedback: FeedbackApi
    run_events: RunEvents
    status: StatusRoutes


# fmt: off
OPERATIONS: tuple[Operation[Services], ...] = (
    Operation("chat", "POST", "/v1/chat/completions", 'Chat with a model or a pattern ("orchestra/maestro")',
              request=ChatBody, http_handler=lambda s: s.generations.chat, subject=CHAT_SUBJECT),
    Operation("completion", "POST", "/v1/completions", "Continue plain text",
              request=CompletionBody, http_handler=lambda s: s.generations.completion),
    Operation("embedding", "POST", "/v1/embeddings", "Turn texts into vectors",
              request=EmbeddingBody, http_handler=lambda s: s.generations.embedding),
    Operation("jobs-submit", "POST", "/v1/jobs", "Queue a chat and fetch its answer later",
              request=JobBody, handler=lambda s: s.jobs.submit, subject="orchestra.jobs.submit", raw=True),
    Operation("jobs-list", "GET", "/v1/jobs", "List jobs, the last changed first",
              request=ListJobs, handler=lambda s: s.jobs.list_jobs, subject="orchestra.jobs.list"),
    Operation("jobs-get", "GET", "/v1/jobs/{id}", "A job and, once it has ended, its answer",
              request=JobId, handler=lambda s: s.jobs.get, subject="orchestra.jobs.get"),
    Operation("jobs-cancel", "DELETE", "/v1/jobs/{id}", "Cancel a job",
              request=JobId, handler=lambda s: s.jobs.cancel, subject="orchestra.jobs.cancel"),
    Operation("run-events", "GET", "/v1/runs/{id}/events", "The events of a run, as server-sent events",
              request=RunId, http_handler=lambda s: s.run_events.stream),
    Operation("feedback", "POST", "/v1/feedback", "Rate the answer of a run", max_bytes=16_384,
              request=Feedback, handler=lambda s: s.feedback.give, subject="orchestra.feedback"),
    Operation("models", "GET", "/v1/models", "The models that can be asked now",
              handler=lambda s: s.status.models, access=Access.OPTIONAL_KEY),
    Operation("model", "GET", "/v1/models/{model:path}", "One model",
              request=ModelId, handler=lambda s: s.status.model, access=Access.OPTIONAL_KEY),
    Operation("patterns", "GET", "/v1/patterns", "The patterns, with the JSON schema of their settings",
              handler=lambda s: s.status.patterns),
    Operation("healthz", "GET", "/healthz", "200 while this process runs",
              handler=lambda s: s.status.healthz, access=Access.OPEN),
    Operation("readyz", "GET", "/readyz", "200 while requests can be answered, else 503 with the reasons",
              handler=lambda s: s.status.readyz, access=Access.OPEN),
    Operation("metrics", "GET", "/metrics", "Metrics for Prometheus",
              handler=lambda s: s.status.metrics, access=Access.OPEN),
    Operation("metrics-targets", "GET", "/metrics/targets", "All processes, for Prometheus to discover",
              handler=lambda s: s.status.targets, access=Access.OPEN),
    Operation("process-metrics", "GET", "/metrics/processes/{id}", "Metrics of one process of the cluster",
              request=ProcessId, handler=lambda s: s.status.process_metrics, access=Access.OPEN),
    Operation("index", "GET", "/", "This page",
              handler=lambda s: s.status.index, access=Access.OPEN),
)
# fmt: on


def routes_text() -> str:
    """The HTTP routes, one per line."""
    width = max(len(operation.route) for operation in OPERATIONS)
    return "\n".join(f"{each.method:6} {each.route:{width}}  {each.summary}" for each in OPERATIONS)
