"""Does the steps of one run: within its budget, each once, and every one timed, recorded and reported."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from orchestration.errors import (
    BudgetExceeded,
    ContentFiltered,
    DeadlineExceeded,
    InternalError,
    OrchestraError,
)
from orchestration.messages import Finish, Step, TextDelta, ToolResult, Usage
from orchestration.patterns.base import GenerationRequest, StepAccepted, StepResult, ToolUse
from orchestration.patterns.budget_tracker import Allowance, BudgetShare, BudgetTracker
from orchestration.patterns.executor import LocalTools, StepExecutor
from orchestration.patterns.partial_step import PartialStep
from orchestration.patterns.run_report import RunReport
from orchestration.patterns.step_cache import StepCache, StepRecord
from orchestration.patterns.step_request import (
    StepDone,
    StepEvent,
    StepProgress,
    StepRecorded,
    StepRequest,
    StepRunEvent,
    StepText,
    StepWritten,
)


class StepRunner:
    """The steps of one run; at an agent, those of one step of it. `clock` gives seconds."""

    def __init__(
        self,
        executor: StepExecutor,
        budget: BudgetTracker,
        clock: Callable[[], float],
        report: RunReport | None = None,
        step_cache: StepCache | None = None,
    ) -> None:
        self.executor = executor
        self.budget = budget
        self.report = report or RunReport()
        self.step_cache = step_cache or StepCache()
        self.builds_on: dict[str, tuple[str, ...]] = {}
        """The steps that a step builds on, by its name, where a pattern knows them before it begins."""
        self._clock = clock
        self._names: set[str] = set()
        self._at_work = 0
        self._before: tuple[str, ...] = ()
        self._ended: list[str] = []
        self._unreported: deque[Step] = deque()
        """Steps that were stopped, and that those who watch have not been told of."""

    def claim(self, name: str) -> None:
        """Raises `InternalError` where a step of the run has that name already."""
        if name in self._names:
            raise InternalError(f"two steps of a run have the name {name!r}")
        self._names.add(name)

    async def generate(
        self, request: GenerationRequest, after: Sequence[str] | None = None, *, last: bool = False
    ) -> AsyncGenerator[TextDelta | StepResult, None]:
        """Make one model call: its text as it comes, then its result. See `RunContext.ask` and `stream`."""
        original, known = request, await self._recalled(request, after)
        if known is not None:
            yield TextDelta(text=known.step.text, tokens=known.step.usage.completion_tokens)
            yield known.answer
            return
        allowance = await self._allowance(request, last)
        if allowance.max_tokens != request.sampling.max_tokens:
            sampling = request.sampling.model_copy(update={"max_tokens": allowance.max_tokens})
            request = replace(request, sampling=sampling)
        request = replace(request, seconds=allowance.seconds)
        await self._begin(request.name, request.agent, request.model or "", after)
        began = self._clock()
        work, over = PartialStep(request, self.budget.read), False
        try:
            if request.prefix:
                yield TextDelta(text=request.prefix, tokens=request.prefix_tokens)
            async with aclosing(self.executor.generate(request)) as items:
                async for item in items:
                    if isinstance(item, Finish):
                        work.finish = item
                    elif isinstance(item, StepAccepted):
                        work.accepted_by = item.model
                    else:
                        work.take(item)
                        yield item
            if work.finish is None:
                raise InternalError(f"step {request.name!r} of {request.agent} ended without a Finish")
            if work.finish.reason == "content_filter" and not last:  # no whole answer to go on with
                raise ContentFiltered(f"a content filter cut the answer of model {work.model!r} off")
            over = True
        except OrchestraError as error:
            over = True
            late = isinstance(error, DeadlineExceeded) and self.budget.ran_out(allowance, began)
            if not (late and last and work.tokens):
                if late:
                    error = self.budget.out_of_time(request.name)
                await self._fail(work.step(self._clock() - began, error.body()), error)
                raise error
            self.budget.shortened.append(request.name)
            work.finish = Finish(reason="length", usage=work.usage, model=work.model)
        finally:
            self.budget.end(request, allowance, work.usage)
            self._at_work -= 1
            if not over:
                self._stop(work.step(self._clock() - began))
        step = work.step(self._clock() - began)
        record = StepRecord(step=step, run_s=self.budget.seconds)
        yield (await self._finish(original, record, last=last)).answer

    async def use(self, use: ToolUse, tools: LocalTools, after: Sequence[str] | None = None) -> ToolResult:
        """Use a tool of this process, which is a step as well. See `RunContext.use`."""
        known = await self._recalled(use, after)
        if known is not None and known.result is not None:
            return known.result
        use = replace(use, seconds=self.budget.seconds_for(use.name))
        await self._begin(use.name, use.agent, "", after)
        began = self._clock()
        step = Step(name=use.name, agent=use.agent, tool=use.tool)
        try:
            result = await tools.use(use)
        except OrchestraError as error:
            failed = {"finish_reason": "error", "seconds": self._clock() - began, "error": error.body()}
            await self._fail(step.model_copy(update=failed), error)
            raise
        finally:
            self._at_work -= 1
        done = {"text": result.error or result.text, "seconds": self._clock() - began}
        record = StepRecord(step=step.model_copy(update=done), run_s=self.budget.seconds, result=result)
        return (await self._finish(use, record)).result or result

    async def delegate(
        self, request: StepRequest, main: GenerationRequest | None
    ) -> AsyncGenerator[TextDelta | StepDone, None]:
        """Have an agent with tools do a step, of which `main` is the model call that it is about. Its parts
        count as steps that are done here. Gives the text for the caller as it comes, then the end.

        Raises `NoResponders` when no agent of that name has tools, `BudgetExceeded`, and the step's error.
        """
        await self._settle_earlier()
        try:
            share = self.budget.share(request.name, main, last=request.kind == "answer")
        except BudgetExceeded as error:
            await self.progress(f"{request.name}: not begun: {error.message}")
            raise
        run = request.run.model_copy(update={"budget": share.budget})
        records = self.step_cache.records("" if request.kind == "answer" else request.name)
        sent = tuple(record.model_copy(update={"run_s": 0.0}) for record in records)
        request = request.model_copy(update={"run": run, "records": sent})
        for record in records:
            self.budget.older(record.run_s)
        remote = _RemoteStep(self, request, main, share)
        try:
            async with aclosing(self.executor.perform(request)) as events:
                async for event in events:
                    if isinstance(event, StepText):
                        yield event.delta
                    elif isinstance(event, StepDone):
                        self.report.merge(event.report)
                        self.budget.merge(event.left_out, event.shortened)
                        yield event
                    else:
                        await remote.take(event)
        finally:
            self.budget.give_back(share)
            remote.stop()

    async def tell_stopped(self) -> None:
        """Report stopped steps that were not reported yet."""
        while self._unreported:
            step = self._unreported.popleft()
            await self.executor.event("step_ended", {"step": step})
            tokens = step.usage.completion_tokens
            text = f"{step.name}: {step.agent} was stopped after {step.seconds:.1f} s and {tokens} tokens"
            await self.executor.progress(text, step)

    async def progress(self, text: str) -> None:
        """Publish a line for people."""
        await self.tell_stopped()
        await self.executor.progress(text, None)

    async def event(self, type: str, **data: Any) -> None:
        """Publish an event for programs. `data` is JSON."""
        await self.tell_stopped()
        await self.executor.event(type, data)

    @property
    def seconds(self) -> float:
        return self._clock()

    async def _allowance(self, request: GenerationRequest, last: bool) -> Allowance:
        try:
            return self.budget.begin(request, last=last)
        except BudgetExceeded as error:
            await self.progress(f"{request.name}: not begun: {error.message}")
            raise

    async def _begin(self, name: str, agent: str, model: str, after: Sequence[str] | None) -> None:
        if not self._at_work and self._ended:
            self._before, self._ended = tuple(self._ended), []
        self._at_work += 1
        after = self.builds_on.get(name) if after is None else after
        await self.event(
            "step_started",
            step=name,
            agent=agent,
            model=model,
            after=self._before if after is None else tuple(after),
        )

    async def _fail(self, step: Step, error: OrchestraError) -> None:
        self.step_cache.discard(step, self.budget.seconds)
        await self._over(step)
        text = f"{step.name}: {step.agent} failed after {step.seconds:.1f} s: {error.message}"
        await self.executor.progress(text, step)

    def _stop(self, step: Step) -> None:
        """Record a step that its pattern stopped. A cancelled task must not wait, so the step is reported
        with the next event."""
        self.step_cache.discard(step, self.budget.seconds)
        self.report.steps.append(step)
        self._ended.append(step.name)
        self._unreported.append(step)

    async def _finish(
        self, original: GenerationRequest | ToolUse, record: StepRecord, *, last: bool = False
    ) -> StepRecord:
        """Record the step before anything follows from it. Returns the record that counts."""
        try:
            record = await self.step_cache.keep(original, record, last=last)
        except asyncio.CancelledError:  # its tokens count, though its text is not wanted
            self._stop(record.step.model_copy(update={"finish_reason": "cancelled"}))
            raise
        step = record.step
        text = f"took {step.seconds:.1f} s for {step.usage.completion_tokens} tokens"
        if record.result is not None:
            wrong = f": {record.result.error}" if record.result.error else ""
            text = f"used {step.tool} for {step.seconds:.1f} s{wrong}"
        await self._over(step)
        await self.executor.progress(f"{step.name}: {step.agent} {text}", step)
        return record

    async def _settle_earlier(self) -> None:
        """Count what steps of an earlier coordinator used that gave no answer, and record the last step."""
        for step in self.step_cache.take_discarded():
            self.budget.recorded(step.usage)
            await self._over(step, recorded=True)
        await self.step_cache.next()

    async def _recalled(
        self, original: GenerationRequest | ToolUse, after: Sequence[str] | None
    ) -> StepRecord | None:
        """The record of the step, if an earlier coordinator finished it. Its events are sent again."""
        await self._settle_earlier()
        known = self.step_cache.find(original)
        if known is None:
            return None
        self.budget.older(known.run_s)
        if isinstance(original, GenerationRequest):
            self.budget.recorded(known.step.usage)
        model = original.model or "" if isinstance(original, GenerationRequest) else ""
        await self._begin(original.name, original.agent, model, after)
        self._at_work -= 1
        await self._over(known.step, recorded=True)
        await self.progress(f"{original.name}: {original.agent} did this before, and is not asked again")
        return known

    async def _over(self, step: Step, **flags: bool) -> None:
        self.report.steps.append(step)
        self._ended.append(step.name)
        await self.event("step_ended", step=step, **flags)


@dataclass(slots=True)
class _RemoteStep:
    """A step that an agent does: its parts become steps of the run of `runner`."""

    runner: StepRunner
    request: StepRequest
    main: GenerationRequest | None
    share: BudgetShare
    _began: float = 0.0
    _name: str = ""
    """The part at work; '' for none."""
    _agent: str = ""
    _model: str = ""
    _tokens: int = 0
    _texts: list[str] = field(default_factory=list)
    _over: set[str] = field(default_factory=set)
    """Parts that have an answer."""
    _ended: dict[str, Step] = field(default_factory=dict)
    """Parts that ended and are not reported as progress yet."""

    async def take(self, event: StepEvent) -> None:
        runner = self.runner
        if isinstance(event, StepRecorded):
            aged = event.record.model_copy(update={"run_s": runner.budget.seconds})
            await runner.step_cache.keep_record(aged)
        elif isinstance(event, StepWritten):
            self._texts.append(event.text)
            self._tokens += event.tokens
            self._model = event.model or self._model
        elif isinstance(event, StepProgress):
            await runner.tell_stopped()
            await runner.executor.progress(event.text, self._ended.pop(event.finished, None))
        elif isinstance(event, StepRunEvent):
            if event.event == "step_started":
                await self._start(event.data)
            elif event.event == "step_ended":
                await self._end(event.data)
            else:
                if event.event == "warning":
                    runner.report.notes.append(str(event.data.get("text", "")))
                await runner.event(event.event, **event.data)

    async def _start(self, data: Mapping[str, Any]) -> None:
        self.stop()  # what an agent that was lost had begun
        name = str(data["step"])
        if name in self._over:  # another agent says again what the lost one did
            return
        runner = self.runner
        runner._names.add(name)
        self._name, self._agent, self._model = name, str(data["agent"]), str(data.get("model", ""))
        self._tokens, self._texts, self._began = 0, [], runner.seconds
        await runner._begin(name, self._agent, self._model, data.get("after") or None)

    async def _end(self, data: Mapping[str, Any]) -> None:
        step = Step.model_validate(data["step"])
        if step.name in self._over:
            return
        runner = self.runner
        if not data.get("recorded"):
            self._ended[step.name] = step
        if step.name == self._name:
            self._name = ""
            runner._at_work -= 1
        if not step.tool:
            runner.budget.used(self.share, step.usage)
        if step.discarded:
            runner.step_cache.discard(step, runner.budget.seconds)
        else:
            self._over.add(step.name)
        await runner._over(step, **({"recorded": True} if data.get("recorded") else {}))

    def stop(self) -> None:
        """The part at work was stopped, or its agent was lost."""
        if not self._name:
            return
        runner = self.runner
        usage = Usage()
        if self._tokens:
            prompt = runner.budget.read(self.main) if self.main is not None else 0
            usage = Usage(prompt_tokens=prompt, completion_tokens=self._tokens, estimated=True)
            runner.budget.used(self.share, usage)
        step = Step(
            name=self._name,
            agent=self._agent,
            model=self._model,
            text="".join(self._texts),
            finish_reason="cancelled",
            usage=usage,
            seconds=runner.seconds - self._began,
        )
        self._name = ""
        runner._at_work -= 1
        runner._stop(step)
