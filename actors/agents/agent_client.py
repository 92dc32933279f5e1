"""How a coordinator has the steps of a run done: model calls here, steps with tools at their agents."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from actors.agents.evaluations import record_evaluation
from actors.agents.metrics import count_step
from actors.agents.model_client import ModelClient, start_agent_span
from actors.agents.run_event_publisher import RunEventPublisher
from actors.agents.run_log import record_step
from actors.bus.subjects import AgentAddress
from actors.runtime.stream_call import stream_call
from actors.streams.writer import StreamWriter
from orchestration.errors import BusUnavailable, InternalError, NodeLost, NoResponders, ShuttingDown
from orchestration.messages import JoinedText, Step
from orchestration.patterns import ResumeFilter
from orchestration.patterns.step_request import (
    StepEvent,
    StepEvents,
    StepRecorded,
    StepRequest,
    StepText,
)

log = logging.getLogger(__name__)

MAX_TRIES = 8
"""Times that a step is sent to agents of a name, while they leave or are lost, or NATS is away."""
ABSENT_S = 2.0
"""An agent of which no replica has tools is not asked again within that time."""


@dataclass(slots=True)
class AbsentAgents:
    """Agents of which no replica has tools, as was found a moment ago. One for a process."""

    _until: dict[str, float] = field(default_factory=dict)

    def __contains__(self, agent: str) -> bool:
        return time.monotonic() < self._until.get(agent, 0.0)

    def add(self, agent: str) -> None:
        self._until[agent] = time.monotonic() + ABSENT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentClient(ModelClient):
    """The `StepExecutor` of one run. Progress goes to the run's stream."""

    writer: StreamWriter
    run_events: RunEventPublisher
    absent: AbsentAgents

    async def perform(self, request: StepRequest) -> AsyncGenerator[StepEvent, None]:
        """Send the step to an agent once. Where that agent is lost or leaves, or NATS was away, one goes on:
        parts that were recorded are not done again, and text that was streamed is not streamed again."""
        if request.agent in self.absent:
            raise NoResponders(f"no agent {request.agent!r} has tools")
        sent = _SentStep(request)
        for tries in range(1, MAX_TRIES + 1):
            try:
                async with aclosing(self._send(sent.request())) as events:
                    async for event in events:
                        new = sent.new(event)
                        if new is not None:
                            yield new
                return
            except NoResponders as error:
                if sent.started:
                    raise NodeLost(f"agent {request.agent!r} was lost: {error.message}") from error
                self.absent.add(request.agent)
                raise
            except (ShuttingDown, NodeLost, BusUnavailable) as error:
                if tries == MAX_TRIES:
                    raise
                log.info("step %s of run %s is sent again: %s", request.name, request.run.id, error)
            await self.services.bus.wait_connected(self.services.streams.limits.max_outage_s)

    async def progress(self, text: str, step: Step | None) -> None:
        if step is not None:
            outcome = "cancelled" if step.discarded else "ok"
            count_step(step.agent, step.error.code if step.error else outcome)
            record_step(self.run_events.run_id, step, self.envelope)
        await self.writer.progress(text, step)

    async def event(self, type: str, data: dict[str, Any]) -> None:
        record_evaluation(type, data, self.envelope.trace)
        self.run_events.add(type, data)

    async def _send(self, request: StepRequest) -> AsyncGenerator[StepEvent, None]:
        settings = self.services.settings
        subject = AgentAddress(settings.cluster, request.agent).step
        body = request.model_dump_json(exclude_defaults=True).encode()
        with start_agent_span(request.agent, self.envelope.trace, step=request.name) as span:
            envelope = self.envelope.with_trace(span.traceparent or self.envelope.trace)
            messages = stream_call(self.services.bus, subject, body, envelope, settings.step_silence_s)
            expected = 0
            try:
                async with aclosing(messages):
                    async for message in messages:
                        decoded = _decoded(message, subject)
                        if decoded.seq != expected:
                            raise NodeLost(f"message {expected} of step {request.name!r} did not arrive")
                        expected += 1
                        for event in decoded.events:
                            yield event
            except NoResponders:
                span.abandon()  # no such agent: the step is done here, under a span of its own
                raise


class _SentStep:
    """A step as it is sent, once more where its agent is lost."""

    def __init__(self, request: StepRequest) -> None:
        self.started = False
        self._request = request
        self._records = {record.step.name: record for record in request.records}
        self._resume = ResumeFilter()
        self._joined = JoinedText()

    def request(self) -> StepRequest:
        """The request as it is sent now, with the parts that a lost agent has finished."""
        if not self.started:
            return self._request
        update: dict[str, Any] = {"records": tuple(self._records.values())}
        if self._joined:
            text, tokens = self._joined.text, self._joined.tokens
            self._resume = ResumeFilter(text, tokens)
            update |= {"prefix": text, "prefix_tokens": tokens}
        return self._request.model_copy(update=update)

    def new(self, event: StepEvent) -> StepEvent | None:
        """The event, or what of it is new; None where nothing is."""
        self.started = True
        if isinstance(event, StepRecorded):
            self._records[event.record.step.name] = event.record.model_copy(update={"run_s": 0.0})
        elif isinstance(event, StepText):
            delta = self._resume.new(event.delta)
            if delta is None:
                return None
            self._joined.add(delta)
            return StepText(delta=delta)
        return event


def _decoded(message: bytes, subject: str) -> StepEvents:
    try:
        return StepEvents.model_validate_json(message)
    except ValidationError as error:
        raise InternalError(f"an event on {subject} cannot be read") from error
