"""One attempt at a run in its trace: `invoke_workflow PATTERN`, with a link to an attempt that was lost."""

from __future__ import annotations

import time
from dataclasses import dataclass

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from actors.bus.jetstream import Delivery
from actors.telemetry import conventions as names
from actors.telemetry.tracing import NO_SPAN, OpenSpan, derived_span_id, start_span, tracing
from orchestration.errors import NodeLost
from orchestration.messages import Run, Work


@dataclass(slots=True, kw_only=True)
class RunAttempt:
    """An attempt, and whether the one before it was lost with its coordinator.

    The id of an attempt's span is made of the run and the number of the attempt. So a coordinator that
    takes a run up can write the span of the lost attempt, which never ended, for what is below it, and link
    to it.
    """

    delivery: Delivery | None = None
    number: int = 1
    before_lost: bool = False
    is_job: bool = False
    """Whether nobody waits: then the work begins after the span that it is below has ended."""

    @classmethod
    def of(cls, delivery: Delivery, *, before_lost: bool = False, is_job: bool = False) -> RunAttempt:
        """The attempt of a delivery."""
        return cls(delivery=delivery, number=delivery.attempt, before_lost=before_lost, is_job=is_job)

    def start_span(self, work: Work, trace: str) -> OpenSpan:
        """The span of this attempt, below the caller's `trace`."""
        if tracing.tracer is None:
            return NO_SPAN
        stored_ns = 0 if self.delivery is None else self.delivery.stored_ns
        attributes = self._attributes(work)
        name = f"{names.INVOKE_WORKFLOW} {work.pattern}" if isinstance(work, Run) else "job"
        kind = SpanKind.CONSUMER if self.is_job else SpanKind.INTERNAL
        links: list[str] = []
        if self.before_lost and self.number > 1:
            lost_id = self._span_id(work, self.number - 1)
            lost = start_span(
                name,
                trace,
                attributes | {names.ATTEMPT: self.number - 1},
                kind=kind,
                began_ns=stored_ns,
                span_id=lost_id,
            )
            lost.fail(NodeLost("the coordinator was lost"))
            links.append(lost.traceparent)
            lost.end()
        elif stored_ns and not self.is_job:
            queue = {names.MESSAGING_SYSTEM: "nats", names.MESSAGING_DESTINATION: "RUNS"}
            start_span("queue", trace, queue, began_ns=stored_ns).end()
        if stored_ns:
            attributes[names.QUEUED_SECONDS] = max(0.0, (time.time_ns() - stored_ns) / 1e9)
        span_id = self._span_id(work, self.number)
        return start_span(name, trace, attributes, kind=kind, links=links, span_id=span_id)

    def _span_id(self, work: Work, number: int) -> int:
        return derived_span_id(work.id, str(self.delivery.sequence), str(number)) if self.delivery else 0

    def _attributes(self, work: Work) -> dict[str, AttributeValue]:
        found: dict[str, AttributeValue] = {
            names.RUN: work.id,
            names.PRIORITY: work.priority.value,
            names.ATTEMPT: self.number,
            names.SPAN_KIND: names.CHAIN,
        }
        if isinstance(work, Run):
            found |= {
                names.OPERATION_NAME: names.INVOKE_WORKFLOW,
                names.PROVIDER_NAME: names.PROVIDER,
                names.AGENT_NAME: work.pattern,
                names.PATTERN: work.pattern,
            }
        return found
