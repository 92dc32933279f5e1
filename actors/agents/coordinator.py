"""Runs the patterns of runs. The coordinator also answers prompts, as every agent does."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from actors.agents.agent_client import AbsentAgents, AgentClient
from actors.agents.messages import Prompt
from actors.agents.run_attempt import RunAttempt
from actors.agents.run_event_publisher import RunEventPublisher
from actors.agents.run_facts import final_tokens, run_facts
from actors.agents.run_log import record_started
from actors.agents.services import AgentServices
from actors.agents.specialist import Specialist
from actors.agents.step_records import StepRecords
from actors.learning.tuner import RunAdvisor
from actors.runtime.actor import Actor
from actors.runtime.envelope import Envelope, trace_of
from actors.runtime.failures import wrap_unexpected_errors
from actors.streams.characters import whole_characters
from actors.streams.writer import StreamWriter
from actors.telemetry import conventions as names
from actors.telemetry.tracing import OpenSpan, recorded_trace_id
from orchestration.accounts import accounts_of
from orchestration.bandit.durations import Durations
from orchestration.errors import InternalError, OrchestraError
from orchestration.fitting import MAX_END_BYTES, fitting
from orchestration.messages import (
    ChatMessage,
    End,
    Generation,
    Priority,
    Run,
    RunEnd,
    Step,
    StreamEnd,
    TextDelta,
    Work,
)
from orchestration.patterns import (
    BudgetTracker,
    ResumeFilter,
    RunContext,
    RunReport,
    StepCache,
    StepRecord,
    StepResult,
    StepRunner,
)
from orchestration.trust.lengths import AnswerLengths


@dataclass(slots=True, eq=False)
class RunExecution:
    """Work from the queue of runs, and the state of performing it. The work is a run, or a job's generation.

    `steps` and the trace in `envelope` are set while the work is performed, so that they are known also when
    it fails. If another coordinator had the work before, `resume_filter` has the text that it wrote, and
    `known` the steps that it finished. `step_cache` records the steps of this coordinator.
    """

    work: Work
    envelope: Envelope
    writer: StreamWriter
    run_events: RunEventPublisher
    records: StepRecords
    steps: list[Step] = field(default_factory=list)
    resume_filter: ResumeFilter = field(default_factory=ResumeFilter)
    known: dict[str, StepRecord] = field(default_factory=dict)
    step_cache: StepCache = field(default_factory=StepCache)
    attempt: RunAttempt = field(default_factory=RunAttempt)
    ordinal: int = 1
    """The number of this attempt among all of the run, also after an operator has queued a job again."""
    caller_left: bool = False

    @property
    def goes_on_elsewhere(self) -> bool:
        """Whether, as this coordinator stops, another one takes the run up, or has done so."""
        if self.writer.superseded:
            return True
        waits = isinstance(self.work, Run) and self.work.priority is not Priority.INTERACTIVE
        return waits and not self.caller_left and not 0 < self.envelope.deadline <= time.time()

    @property
    def pattern(self) -> str:
        """The name of the run's pattern; '' for a generation."""
        return self.work.pattern if isinstance(self.work, Run) else ""


class Coordinator(Actor):
    """Performs many runs at once: most of the time it waits for agents. `RunConsumer` limits their number."""

    concurrency = 3 * 1024
    mailbox_size = 3 * 1024

    def __init__(self, services: AgentServices) -> None:
        self.services = services
        self.durations = Durations()
        self.lengths = AnswerLengths()
        self.absent = AbsentAgents()

    async def on_run(self, execution: RunExecution) -> End:
        """Write the run's stream up to its end, which is the result. Raises what the pattern raises."""
        with execution.attempt.start_span(execution.work, execution.envelope.trace) as span:
            trace = span.traceparent or execution.envelope.trace or trace_of(execution.work.id)
            execution.envelope = replace(
                execution.envelope.with_trace(trace), pattern=execution.pattern, run=execution.work.id
            )
            execution.run_events.add("started", _started(execution))
            record_started(execution)
            try:
                if execution.work.kind != "run":
                    return await self._generate(execution.work, execution)
                return await self._run(execution.work, execution, span)
            except asyncio.CancelledError:
                if execution.goes_on_elsewhere:
                    span.abandon()
                raise

    async def _run(self, work: Run, execution: RunExecution, span: OpenSpan) -> RunEnd:
        tuning = self.services.tuner.advisor(work, execution.envelope.caller)
        context = self._context(work, execution, tuning)
        began = time.perf_counter()
        answer = await self._perform(work, context, execution)
        if context.resume_filter.anew:
            await context.warn("begun anew: it does not go on from what its first coordinator had said")
        await context.settle()
        await tuning.ended(context, answer, time.perf_counter() - began)
        if span.recording:
            tokens = context.usage.prompt_tokens + context.usage.completion_tokens
            chosen = {f"orchestra.auto.{name}": value for name, value in _choice(context).items()}
            span.set({names.TOKENS_TOTAL: tokens, **chosen})
        finish = {"usage": context.usage, "notes": tuple(context.notes)}
        ended = RunEnd(
            finish=answer.finish.model_copy(update=finish),
            steps=tuple(context.steps),
            accounts=accounts_of(context.steps),
            trace_id=recorded_trace_id(execution.envelope.trace),
            report=context.report.sections,
        )
        # A plug-in may have put anything into the report.
        with wrap_unexpected_errors(f"the report of run {work.id}", "pattern"):
            return fitting(ended, min(MAX_END_BYTES, self.services.bus.max_payload // 2))

    async def _generate(self, generation: Generation, execution: RunExecution) -> End:
        """Send a job's generation to the nodes as it is, and write what they answer to the job's stream."""
        call = generation.model_copy(update={"id": self.services.streams.new_id()})
        async with aclosing(self.services.streams.stream(call, execution.envelope)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    execution.run_events.add_text(event.text)
                    await execution.writer.write(event)
                elif isinstance(event, StreamEnd):
                    return event.model_copy(update={"trace_id": recorded_trace_id(execution.envelope.trace)})
        raise InternalError(f"the generation of {generation.id} ended without saying so")

    def _context(self, run: Run, execution: RunExecution, tuning: RunAdvisor) -> RunContext:
        """The run as its pattern sees it, with all that is known of it already."""
        facts = run_facts(
            self.services,
            run,
            trust_of=tuning.trust,
            question_kind=tuning.kind or "factual",
            lengths=self.lengths,
            durations=self.durations,
            advisor=tuning,
        )
        client = AgentClient(
            services=self.services,
            envelope=execution.envelope,
            writer=execution.writer,
            run_events=execution.run_events,
            absent=self.absent,
        )
        execution.step_cache = StepCache(execution.records, execution.known)
        budget = BudgetTracker(
            run.budget,
            clock=time.perf_counter,
            final_tokens=final_tokens(run, facts),
            deadline_s=execution.envelope.remaining(0) or None,
        )
        report = RunReport(steps=execution.steps)
        runner = StepRunner(client, budget, time.perf_counter, report, execution.step_cache)
        return RunContext(run, facts, runner, execution.resume_filter)

    async def _perform(self, run: Run, context: RunContext, execution: RunExecution) -> StepResult:
        what = f"pattern {run.pattern!r} of run {run.id}"
        try:
            with wrap_unexpected_errors(what, "pattern"):  # it may be a plug-in
                answer = await self._performed(run, context, execution)
        except OrchestraError:
            await context.runner.tell_stopped()
            raise
        if answer is None:
            raise InternalError(f"{what} ended without an answer")
        return answer

    async def _performed(self, run: Run, context: RunContext, execution: RunExecution) -> StepResult | None:
        answer: StepResult | None = None
        async with aclosing(self.services.catalogue.find(run.pattern)(run, context)) as items:
            async for item in items:
                if isinstance(item, StepResult):
                    answer = item
                else:
                    part = _sound(item)
                    execution.run_events.add_text(part.text)
                    new = context.resume_filter.new(part)
                    if new is not None:
                        await execution.writer.write(new)
        return answer


def _sound(item: Any) -> TextDelta:
    """What a pattern yielded, as it can be sent. Raises `TypeError` for anything but a valid `TextDelta`."""
    if not isinstance(item, TextDelta):
        raise TypeError(f"it yielded {type(item).__name__}: a pattern yields TextDeltas and its StepResult")
    if not (isinstance(item.text, str) and isinstance(item.reasoning, str)):
        raise TypeError(f"it yielded a TextDelta whose text is {type(item.text).__name__}, not str")
    if item.text.isascii() and not item.reasoning:
        return item
    return replace(item, text=whole_characters(item.text), reasoning=whole_characters(item.reasoning))


def _started(execution: RunExecution) -> dict[str, Any]:
    """The fields of the event `started`."""
    fields = {"pattern": execution.pattern, "attempt": execution.run_events.attempt}
    return fields | {"model": execution.work.model} if execution.work.kind != "run" else fields


def _choice(context: RunContext) -> dict[str, str]:
    """What `auto` chose, as a trace tells it."""
    chosen = context.report.sections.get("auto", {})
    return {name: str(chosen[name]) for name in ("kind", "pattern", "profile") if name in chosen}


class CoordinatorAgent(Specialist):
    """The coordinator as others see it: a prompt becomes a run of `auto`, which any coordinator may take."""

    def work(self, prompt: Prompt) -> Run:
        messages = (ChatMessage(role="user", content=prompt.text),)
        return Run(id=self.streams.new_id(), pattern="auto", messages=messages)
