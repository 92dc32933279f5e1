"""How a coordinator asks the other agents, whichever machine they are on: the `Ask` of a pattern."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
from opentelemetry.trace import SpanKind

from actors.agents.messages import AgentAsked, AskAgent
from actors.agents.metrics import STEPS
from actors.agents.run_event_publisher import RunEventPublisher
from actors.bus.bus import Bus
from actors.bus.subjects import AgentAddress
from actors.cluster.registry import Registry
from actors.embedding.embedder import Embedder
from actors.runtime.envelope import Envelope
from actors.runtime.service import ERROR
from actors.streams.client import Asker
from actors.streams.writer import StreamWriter
from actors.telemetry.telemetry import span, traceparent
from actors.tools.client import RemoteHands
from orchestration.errors import (
    DeadlineExceeded,
    ErrorBody,
    InternalError,
    NodeLost,
    NoNode,
    NoResponders,
    ShuttingDown,
    from_body,
)
from orchestration.messages import Chunk, Ended, Generation, Priority, Step, Tool, ToolResult, Vectors
from orchestration.patterns import GenerationRequest, Outcome, Part, ToolUse

log = logging.getLogger(__name__)

AGAIN_S = 0.5
"""Between two times that a step is offered while no node is there."""
TRIES = 8
"""Times that a step is sent to an agent of a name, before there is none that answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentClient:
    """The agents of `cluster`, for one run. Progress goes to the run's stream."""

    bus: Bus
    asker: Asker
    registry: Registry
    cluster: str
    writer: StreamWriter
    run_events: RunEventPublisher
    envelope: Envelope
    accept_timeout_s: float
    hands: RemoteHands
    embedder: Embedder | None = None

    async def generate(self, question: GenerationRequest) -> AsyncGenerator[Part | Outcome, None]:
        """The agent puts the step on a queue; its events come here straight from the node."""
        ask = AskAgent(
            id=self.asker.new_id(),
            messages=question.messages,
            sampling=question.sampling,
            guide=question.guide,
            model=question.model,
            priority=question.priority,
            labels=question.labels,
            extra=question.extra,
            prefix=question.prefix,
            prefix_tokens=question.prefix_tokens,
        )
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

            model = ""

            async def send(accepted: str) -> None:
                nonlocal model
                model = await self._offer(question.agent, ask, envelope)

            async with aclosing(self.asker.follow(ask.id, envelope, send)) as events:
                async for event in events:
                    if isinstance(event, Chunk):
                        yield Part(
                            text=event.text,
                            tokens=event.tokens,
                            logprobs=event.logprobs,
                            reasoning=event.reasoning,
                            model=model,
                        )
                    elif isinstance(event, Ended):
                        running.set_attribute("gen_ai.request.model", event.model)
                        running.set_attribute("gen_ai.usage.input_tokens", event.usage.prompt_tokens)
                        running.set_attribute("gen_ai.usage.output_tokens", event.usage.completion_tokens)
                        if event.refusal:  # to a pattern, a text like any
                            yield Part(text=event.refusal, tokens=0)
                        yield Outcome(
                            finish_reason=event.finish_reason,
                            usage=event.usage,
                            node=event.node,
                            model=event.model,
                        )

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
        work = Generation(id=self.asker.new_id(), kind="embedding", model=model, inputs=tuple(texts))
        vectors: list[list[float]] = [[] for _ in texts]
        async with aclosing(self.asker.stream(work, self.envelope)) as events:
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

    async def _offer(self, agent: str, ask: AskAgent, envelope: Envelope) -> str:
        """The model that is asked. Who waits for the answer waits for a node too, until the deadline; a job
        is offered again later."""
        told = False
        while True:
            try:
                return await self._send(agent, ask, envelope)
            except NoNode as error:
                if ask.priority is not Priority.INTERACTIVE or envelope.remaining(AGAIN_S) < 2 * AGAIN_S:
                    raise
                if not told:
                    told = True
                    await self.writer.progress(f"waiting: {error.message}")
            await asyncio.sleep(AGAIN_S)

    async def _send(self, agent: str, ask: AskAgent, envelope: Envelope) -> str:
        """Have a replica of `agent` queue the step. Where it is leaving or silent, others are tried: NATS
        chooses among them by lot, and finds out within 12 s that one is frozen. The queue takes a step once,
        whoever brings it. Returns its model.

        Raises `NoResponders` when no such agent is there, `NodeLost` when none answers, and the agent's
        error when it cannot serve the step.
        """
        for _ in range(TRIES - 1):
            try:
                return await self._send_once(agent, ask, envelope)
            except (ShuttingDown, NodeLost) as error:
                log.info("step %s is sent again: %s", ask.id, error)
        return await self._send_once(agent, ask, envelope)

    async def _send_once(self, agent: str, ask: AskAgent, envelope: Envelope) -> str:
        limit = min(self.accept_timeout_s, envelope.remaining(self.accept_timeout_s))
        try:
            reply = await self.bus.request(
                AgentAddress(self.cluster, agent).ask,
                ask.model_dump_json(exclude_defaults=True).encode(),
                timeout=limit,
                headers=envelope.headers(),
            )
        except NoResponders as error:
            raise NoResponders(f"no agent {agent!r} is running in cluster {self.cluster!r}") from error
        except DeadlineExceeded as error:
            envelope.remaining(0)  # where the run's own deadline passed, that is the error
            raise NodeLost(f"agent {agent!r} did not answer in {limit:.1f} s") from error
        try:
            if not reply.header(ERROR):
                return AgentAsked.model_validate_json(reply.data).model
            body = ErrorBody.model_validate_json(reply.data)
        except ValueError as error:
            raise InternalError(f"agent {agent!r} gave an answer that cannot be read") from error
        raise from_body(body)
