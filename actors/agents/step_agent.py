"""The actor that does steps of runs with the tools of one role, on the machine that has them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from opentelemetry.util.types import AttributeValue
from pydantic_core import to_jsonable_python

from actors.agents.model_client import ModelClient
from actors.agents.run_facts import final_tokens, run_facts
from actors.agents.services import AgentServices
from actors.runtime.actor import Actor
from actors.runtime.envelope import current_envelope
from actors.telemetry import conventions as names
from actors.telemetry.tracing import NO_SPAN, OpenSpan, start_span, tracing
from orchestration.errors import DeadlineExceeded, NoResponders
from orchestration.messages import Finish, Step, TextDelta, Tool, ToolResult
from orchestration.patterns import (
    BudgetTracker,
    GenerationRequest,
    ResumeFilter,
    RunContext,
    StepAccepted,
    StepCache,
    StepDone,
    StepRecord,
    StepRequest,
    StepRunner,
    ToolUse,
    perform_step,
)
from orchestration.patterns.step_request import (
    StepAlive,
    StepEvent,
    StepEvents,
    StepProgress,
    StepRecorded,
    StepRunEvent,
    StepText,
    StepWritten,
)

ALIVE_S = 1.0
"""Pause after which an agent that has nothing else to say tells that it works on the step."""
MAX_CHARACTERS = 128 * 1024
"""Events are joined into one message while their texts are shorter together."""
KNOWLEDGE = "knowledge"
"""The tool that searches documents: its use is a retrieval in traces."""
WRITTEN_S = 0.25
"""Least pause between two reports of what the model writes."""


class StepAgent(Actor):
    """Does the steps of one role. They wait for nodes and tools most of their time, so many run at once;
    `ToolRegistry` bounds the tools."""

    concurrency = 64
    mailbox_size = 256

    def __init__(self, role: str, services: AgentServices) -> None:
        self.role = role
        self.services = services

    async def on_step(self, request: StepRequest) -> AsyncIterator[StepEvents]:
        """The events of the step as they come, then its end. A coordinator that leaves stops the work."""
        events: asyncio.Queue[StepEvent | None] = asyncio.Queue()
        client = StepEventClient(
            services=self.services, envelope=current_envelope.get(), events=events, role=self.role
        )
        work = asyncio.get_running_loop().create_task(self._perform(request, client))
        work.add_done_callback(lambda _: events.put_nowait(None))
        seq = 0
        try:
            yield StepEvents(seq=0, events=(StepAlive(),))
            while not work.done() or not events.empty():
                seq += 1
                yield StepEvents(seq=seq, events=await _next(events))
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _perform(self, request: StepRequest, client: StepEventClient) -> None:
        run = request.run
        facts = run_facts(self.services, run, taking_part=request.models, tools=client)
        budget = BudgetTracker(
            run.budget,
            clock=time.perf_counter,
            final_tokens=final_tokens(run, facts),
            deadline_s=client.envelope.remaining(0) or None,
            has_reserve=request.kind == "answer",
        )
        cache = StepCache(client, {record.step.name: record for record in request.records})
        runner = StepRunner(client, budget, time.perf_counter, step_cache=cache)
        context = RunContext(run, facts, runner, ResumeFilter(request.prefix, request.prefix_tokens))
        done = StepDone()
        try:
            async with aclosing(perform_step(context, request)) as items:
                async for item in items:
                    if isinstance(item, StepDone):
                        done = item
                    else:
                        client.events.put_nowait(StepText(delta=item))
        finally:
            await runner.tell_stopped()
        update = {
            "report": to_jsonable_python(runner.report.sections),
            "left_out": tuple(budget.left_out),
            "shortened": tuple(budget.shortened),
        }
        client.events.put_nowait(done.model_copy(update=update))


async def _next(events: asyncio.Queue[StepEvent | None]) -> tuple[StepEvent, ...]:
    """All that happened since the last call; a sign of life where nothing does."""
    try:
        async with asyncio.timeout(ALIVE_S):
            found = [await events.get()]
    except TimeoutError:
        return (StepAlive(),)
    size = _characters(found[0])
    while not events.empty() and size < MAX_CHARACTERS:
        found.append(events.get_nowait())
        size += _characters(found[-1])
    return tuple(event for event in found if event is not None)


def _characters(event: StepEvent | None) -> int:
    """Length of the texts that an event carries, about."""
    if isinstance(event, StepRecorded):
        result = event.record.result
        return len(event.record.step.text) + (len(str(result.data)) if result else 0)
    return len(str(event.data)) if isinstance(event, StepRunEvent) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEventClient(ModelClient):
    """The executor, the tools and the record of one step at its agent: what happens is put into `events`."""

    events: asyncio.Queue[StepEvent | None]
    role: str

    async def generate(
        self, question: GenerationRequest
    ) -> AsyncGenerator[StepAccepted | TextDelta | Finish, None]:
        texts: list[str] = []
        tokens, model, sent_at = 0, "", time.monotonic()
        async with aclosing(ModelClient.generate(self, question)) as items:
            async for item in items:
                if isinstance(item, StepAccepted):
                    model = item.model
                elif isinstance(item, TextDelta):
                    texts.append(item.text)
                    tokens += item.tokens
                    if time.monotonic() - sent_at >= WRITTEN_S:
                        self.events.put_nowait(StepWritten(text="".join(texts), tokens=tokens, model=model))
                        texts, tokens, sent_at = [], 0, time.monotonic()
                yield item

    def start_step_span(self, question: GenerationRequest) -> OpenSpan:
        """None: the coordinator has the span of this step, and stays when this process dies."""
        return NO_SPAN

    async def perform(self, request: StepRequest) -> AsyncGenerator[StepEvent, None]:
        raise NoResponders(f"agent {request.agent!r} does its own step")
        yield StepAlive()

    async def progress(self, text: str, step: Step | None) -> None:
        self.events.put_nowait(StepProgress(text=text, finished=step.name if step else ""))

    async def event(self, type: str, data: dict[str, Any]) -> None:
        self.events.put_nowait(StepRunEvent(event=type, data=to_jsonable_python(data, exclude_none=True)))

    async def keep(self, record: StepRecord) -> StepRecord:
        """Have the coordinator record a finished part. It records the tokens of failed parts by itself."""
        if record.fingerprint:
            self.events.put_nowait(StepRecorded(record=record))
        return record

    async def tools(self, agent: str) -> tuple[Tool, ...]:
        return await self.services.tools.tools(agent) if agent == self.role else ()

    async def use(self, use: ToolUse) -> ToolResult:
        with _start_tool_span(use, self.envelope.trace) as span:
            try:
                async with asyncio.timeout(use.seconds):
                    result = await self.services.tools.use(use.agent, use.tool, dict(use.arguments))
                if tracing.content is not None and span.recording:
                    span.set({names.TOOL_RESULT: tracing.content.redact(result.text)})
                return result
            except TimeoutError as error:
                raise DeadlineExceeded(
                    f"{use.tool} had {use.seconds or 0:.1f} s of the step's time"
                ) from error


def _start_tool_span(use: ToolUse, trace: str) -> OpenSpan:
    """The span of one use of a tool; it has the arguments only where content is recorded."""
    is_search = use.tool == KNOWLEDGE
    operation = names.RETRIEVAL if is_search else names.EXECUTE_TOOL
    attributes: dict[str, AttributeValue] = {
        names.OPERATION_NAME: operation,
        names.PROVIDER_NAME: names.PROVIDER,
        names.TOOL_NAME: use.tool,
        names.AGENT_NAME: use.agent,
        names.STEP: use.name,
        names.SPAN_KIND: names.RETRIEVER if is_search else names.TOOL,
    }
    span = start_span(f"{operation} {use.tool}", trace, attributes)
    if not span.recording:
        return span
    if is_search and isinstance(most := use.arguments.get("max_passages"), int):
        span.set({names.RETRIEVAL_TOP_K: most})
    if tracing.content is not None:
        text = json.dumps(dict(use.arguments), ensure_ascii=False, default=str)
        span.set({names.TOOL_ARGUMENTS: tracing.content.redact(text)})
    return span
