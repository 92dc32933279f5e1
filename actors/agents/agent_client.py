"""How a coordinator asks the other agents, whichever machine they are on: the `Ask` of a pattern."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
from opentelemetry.trace import SpanKind

from actors.agents.metrics import STEPS
from actors.agents.role_generation import role_generation
from actors.agents.run_event_publisher import RunEventPublisher
from actors.bus.bus import Bus
from actors.cluster.registry import Registry
from actors.embedding.embedder import Embedder
from actors.runtime.envelope import Envelope
from actors.streams.client import StreamClient
from actors.streams.writer import StreamWriter
from actors.telemetry.telemetry import span, traceparent
from actors.tools.client import RemoteHands
from orchestration.errors import InvalidRequest, NoNode
from orchestration.messages import (
    Finish,
    Generation,
    Priority,
    Step,
    StreamEnd,
    TextDelta,
    Tool,
    ToolResult,
    Vectors,
)
from orchestration.patterns import GenerationRequest, StepAccepted, ToolUse
from orchestration.roles import Role

AGAIN_S = 0.5
"""Pause between two looks for a node, while none serves a model for the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentClient:
    """Does the steps of one run. Progress goes to the run's stream."""

    bus: Bus
    streams: StreamClient
    registry: Registry
    roles: Mapping[str, Role]
    writer: StreamWriter
    run_events: RunEventPublisher
    envelope: Envelope
    hands: RemoteHands
    embedder: Embedder | None = None

    async def generate(
        self, question: GenerationRequest
    ) -> AsyncGenerator[StepAccepted | TextDelta | Finish, None]:
        """Put the role's model call on its queue. Its events come straight from the node."""
        with span(
            f"invoke_agent {question.agent}",
            parent=self.envelope.trace,
            kind=SpanKind.CLIENT,
            gen_ai__operation__name="invoke_agent",
            gen_ai__provider__name="orchestra",
            gen_ai__agent__name=question.agent,
            orchestra__step__name=question.name,
        ) as running:
            envelope = self.envelope.with_trace(traceparent(self.envelope.trace)).with_timeout(
                question.seconds
            )

            generation = await self._generation(question, envelope)
            yield StepAccepted(model=generation.model)
            async with aclosing(self.streams.stream(generation, envelope)) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        yield event
                    elif isinstance(event, StreamEnd):
                        finish = event.finish
                        running.set_attribute("gen_ai.request.model", finish.model)
                        running.set_attribute("gen_ai.usage.input_tokens", finish.usage.prompt_tokens)
                        running.set_attribute("gen_ai.usage.output_tokens", finish.usage.completion_tokens)
                        if finish.refusal:  # a pattern takes it for text
                            yield TextDelta(text=finish.refusal, tokens=0)
                        yield finish

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """This process makes the vectors, or where it cannot, any node's embedding model."""
        why = "the agents have no embedding model"
        if self.embedder is not None and self.embedder.usable:
            try:
                return [row.tolist() for row in await self.embedder.vectors(texts)]
            except NoNode as error:  # it is being fetched, or cannot be
                why = error.message
        cards = self.registry.cards.values()
        model = min((card.name for card in cards if card.kind == "embedding"), default=None)
        if model is None:
            raise NoNode(f"{why}, and no live node serves one")
        work = Generation(id=self.streams.new_id(), kind="embedding", model=model, inputs=tuple(texts))
        vectors: list[list[float]] = [[] for _ in texts]
        async with aclosing(self.streams.stream(work, self.envelope)) as events:
            async for event in events:
                if isinstance(event, Vectors):
                    for at, encoded in enumerate(event.vectors, event.index):
                        vectors[at] = np.frombuffer(b64decode(encoded), "<f4").tolist()
        return vectors

    async def tools(self, agent: str) -> tuple[Tool, ...]:
        return await self.hands.tools(agent, self.envelope)

    async def use(self, use: ToolUse) -> ToolResult:
        """The agent uses it on its own machine. The span names the tool, not what it was given."""
        with span(
            f"execute_tool {use.tool}",
            parent=self.envelope.trace,
            kind=SpanKind.CLIENT,
            gen_ai__operation__name="execute_tool",
            gen_ai__tool__name=use.tool,
            gen_ai__agent__name=use.agent,
            orchestra__step__name=use.name,
        ):
            envelope = self.envelope.with_trace(traceparent(self.envelope.trace)).with_timeout(use.seconds)
            return await self.hands.use(use.agent, use.tool, use.arguments, envelope)

    async def progress(self, text: str, step: Step | None) -> None:
        if step is not None:
            outcome = "cancelled" if step.discarded else "ok"
            STEPS.labels(step.agent, step.error.code if step.error else outcome).inc()
        await self.writer.progress(text, step)

    async def event(self, type: str, data: dict[str, Any]) -> None:
        self.run_events.add(type, data)

    async def _generation(self, request: GenerationRequest, envelope: Envelope) -> Generation:
        """The model call of a step. An interactive one waits for a node until its deadline; a job's fails at
        once and is tried again later.

        Raises `InvalidRequest` for an agent that does not exist, and what `choose_model` raises.
        """
        role = self.roles.get(request.agent)
        if role is None:
            known = ", ".join(self.roles)
            raise InvalidRequest(f"no agent {request.agent!r}; the agents are {known}", param="agent")
        told = False
        while True:
            try:
                return role_generation(role, request, self.registry, self.streams.new_id())
            except NoNode as error:
                if request.priority is not Priority.INTERACTIVE or envelope.remaining(AGAIN_S) < 2 * AGAIN_S:
                    raise
                if not told:
                    told = True
                    await self.writer.progress(f"waiting: {error.message}")
            await asyncio.sleep(AGAIN_S)
