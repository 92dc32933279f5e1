"""Makes the model calls and the embeddings of a run's steps, in the process that does the step."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
from opentelemetry.trace import SpanKind

from actors.agents.role_generation import role_generation
from actors.agents.services import AgentServices
from actors.runtime.envelope import Envelope
from actors.telemetry import conventions as names
from actors.telemetry.tracing import OpenSpan, start_span
from orchestration.errors import BusUnavailable, InvalidRequest, NoNode
from orchestration.messages import (
    EmbeddingGeneration,
    Finish,
    Generation,
    Priority,
    Step,
    StreamEnd,
    StreamEvent,
    TextDelta,
    Vectors,
)
from orchestration.patterns import GenerationRequest
from orchestration.patterns.base import StepAccepted

log = logging.getLogger(__name__)

NODE_POLL_S = 0.5
"""Pause between two looks for a node, while none serves a model for the step."""
MAX_TRIES = 3
"""Times that a model call is put on its queue, while NATS is lost before the queue has it."""


def start_agent_span(
    agent: str, trace: str, *, step: str = "", kind: SpanKind = SpanKind.INTERNAL
) -> OpenSpan:
    """The span of what an agent does: `plan` where the step is one, else `invoke_agent`. It has no tokens:
    they are on the model calls below it."""
    operation = names.PLAN if step.startswith("plan") else names.INVOKE_AGENT
    attributes = {
        names.OPERATION_NAME: operation,
        names.PROVIDER_NAME: names.PROVIDER,
        names.AGENT_NAME: agent,
        names.STEP: step,
        names.SPAN_KIND: names.AGENT,
    }
    return start_span(f"{operation} {agent}", trace, attributes, kind=kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelClient(ABC):
    """The model calls of one run, or of one step of it."""

    services: AgentServices
    envelope: Envelope

    @abstractmethod
    async def progress(self, text: str, step: Step | None) -> None:
        """See `StepExecutor.progress`."""

    async def generate(
        self, question: GenerationRequest
    ) -> AsyncGenerator[StepAccepted | TextDelta | Finish, None]:
        """Put the role's model call on its queue. Its events come straight from the node."""
        with self.start_step_span(question) as running:
            trace = running.traceparent or self.envelope.trace
            envelope = self.envelope.with_trace(trace).with_timeout(question.seconds)
            generation = await self._generation(question, envelope)
            yield StepAccepted(model=generation.model)
            async with aclosing(self._stream(generation, envelope)) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        yield event
                    elif isinstance(event, StreamEnd):
                        finish = event.finish
                        if finish.refusal:  # to a pattern, a text like any
                            yield TextDelta(text=finish.refusal, tokens=0)
                        yield finish

    def start_step_span(self, question: GenerationRequest) -> OpenSpan:
        """The span of a step that is one model call, which is below it and has the tokens."""
        return start_agent_span(question.agent, self.envelope.trace, step=question.name)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """This process makes the vectors, or where it cannot, any node's embedding model."""
        embedder, streams = self.services.embedder, self.services.streams
        why = "the agents have no embedding model"
        if embedder is not None and embedder.usable:
            try:
                return [row.tolist() for row in await embedder.vectors(texts)]
            except NoNode as error:  # it is being fetched, or cannot be
                why = error.message
        cards = self.services.registry.cards.values()
        model = min((card.name for card in cards if card.kind == "embedding"), default=None)
        if model is None:
            raise NoNode(f"{why}, and no live node serves one")
        work = EmbeddingGeneration(id=streams.new_id(), model=model, inputs=tuple(texts))
        vectors: list[list[float]] = [[] for _ in texts]
        async with aclosing(self._stream(work, self.envelope)) as events:
            async for event in events:
                if isinstance(event, Vectors):
                    for at, encoded in enumerate(event.vectors, event.index):
                        vectors[at] = np.frombuffer(b64decode(encoded), "<f4").tolist()
        return vectors

    async def _stream(self, work: Generation, envelope: Envelope) -> AsyncGenerator[StreamEvent, None]:
        """Send `work` and yield its events. The run was accepted, so it outlives a restart of NATS: where
        that came before a node or the queue had `work`, it is sent again under another id."""
        streams = self.services.streams
        for tries in range(1, MAX_TRIES + 1):
            begun = False
            try:
                async with aclosing(streams.stream(work, envelope)) as events:
                    async for event in events:
                        begun = True
                        yield event
                return
            except BusUnavailable as error:
                if begun or tries == MAX_TRIES:
                    raise
                log.info("model call %s is sent again: %s", work.id, error)
            await self.services.bus.wait_connected(streams.limits.max_outage_s)
            work = work.model_copy(update={"id": streams.new_id()})

    async def _generation(self, request: GenerationRequest, envelope: Envelope) -> Generation:
        """The model call of a step. An interactive one waits for a node until its deadline; a job's fails at
        once and is tried again later.

        Raises `InvalidRequest` for an agent that does not exist, and what `choose_model` raises.
        """
        services = self.services
        role = services.roles.get(request.agent)
        if role is None:
            known = ", ".join(services.roles)
            raise InvalidRequest(f"no agent {request.agent!r}; the agents are {known}", param="agent")
        waits = False
        while True:
            try:
                return role_generation(role, request, services.registry, services.streams.new_id())
            except NoNode as error:
                left_s = envelope.remaining(NODE_POLL_S)
                if request.priority is not Priority.INTERACTIVE or left_s < 2 * NODE_POLL_S:
                    raise
                if not waits:
                    waits = True
                    await self.progress(f"waiting: {error.message}", None)
            await asyncio.sleep(NODE_POLL_S)
