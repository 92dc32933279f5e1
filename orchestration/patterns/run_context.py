"""Where a pattern performs: it asks agents, and every step is timed, recorded and told to who watches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from orchestration.accounts import total_of
from orchestration.bandit.advice import Advisor
from orchestration.bandit.durations import Durations
from orchestration.errors import (
    BudgetExceeded,
    ContentFiltered,
    DeadlineExceeded,
    InternalError,
    OrchestraError,
)
from orchestration.messages import (
    ChatMessage,
    Finish,
    GuidedDecoding,
    ModelCard,
    Run,
    Sampling,
    Step,
    TextDelta,
    Tool,
    ToolResult,
    Usage,
)
from orchestration.patterns.base import GenerationRequest, StepAccepted, StepExecutor, StepResult, ToolUse
from orchestration.patterns.budget_tracker import Allowance, BudgetTracker
from orchestration.patterns.clipping import clip, estimate_tokens
from orchestration.patterns.definition import Pattern
from orchestration.patterns.grounding_context import PLAIN
from orchestration.patterns.limits import MIN_CONTEXT, UNKNOWN_CONTEXT, StepLimits
from orchestration.patterns.partial_step import PartialStep
from orchestration.patterns.resume_filter import ResumeFilter
from orchestration.patterns.step_cache import StepCache, StepRecord
from orchestration.query_analysis.features import Kind
from orchestration.small_models import is_small
from orchestration.trust.assignment import most_trusted
from orchestration.trust.lengths import AnswerLengths
from orchestration.trust.panel import choose_panel
from orchestration.trust.trust import Trust

COORDINATOR = "coordinator"
CRITIC = "critic"
TEXT_TOKENS = 400
"""Of a message that is more than a question: it brings a text, whose words the answer must be free to say."""


class RunContext:
    """One run's. `agents` maps each agent's name to what it is good for; `clock` gives seconds; `models` are
    the chat models that live now; `defaults` are a deployment's settings of patterns, by their names."""

    def __init__(
        self,
        run: Run,
        ask: StepExecutor,
        *,
        agents: Mapping[str, str],
        clock: Callable[[], float],
        limits: StepLimits | None = None,
        models: Sequence[ModelCard] = (),
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.run = run
        self.agents = agents
        self.models = tuple(models)
        self.taking_part: set[str] = set()
        """Models that are asked beside the run's own; empty where nobody knows: any of `models`."""
        self.defaults = defaults or {}
        self.trust = Trust()
        """What is known of how often each model is right at this kind of question."""
        self.trust_of: Callable[[Kind], Trust] = lambda kind: self.trust
        """The same of any kind of question."""
        self.agents_with_models: Collection[str] = ()
        """Agents whose settings name a model that lives, which goes before what is known of others."""
        self.question_kind: Kind = "factual"
        """Of question: see `orchestration.query_analysis.features`."""
        self.lengths = AnswerLengths()
        """How much models write, from earlier runs of the process too."""
        self.steps: list[Step] = []
        self.notes: list[str] = []
        """What the caller should know of the answer, such as that a voice is missing."""
        self.report: dict[str, Any] = {}
        """What the pattern found beside the answer, as JSON: agreement, who said what, and the like."""
        self.numbers: dict[str, int] = {}
        """By step: what its sources are numbered from. See `orchestration.patterns.specialist_step`."""
        self.builds_on: dict[str, tuple[str, ...]] = {}
        """By step: those that it builds on, where a pattern knows that beforehand; see `after` in `ask`."""
        self.resume_filter = ResumeFilter()
        """Knows what the caller has of the answer already, when a run is taken up: the step whose parts are
        passed on to the caller goes on from there."""
        self.step_cache = StepCache()
        """Knows the steps that were done before, when a run is taken up."""
        self.patterns: Mapping[str, Pattern] = {}
        """Those that the process knows, by their names, for one that leaves the work to another."""
        self.advisor: Advisor | None = None
        """Knows how earlier runs went, where anybody keeps that."""
        self.durations = Durations()
        """Knows how long agents take for a task, from earlier runs of the process too."""
        self._given = limits or StepLimits()
        self._fitted: dict[tuple[int, bool], StepLimits] = {}
        self.budget = BudgetTracker(
            run.budget,
            clock=clock,
            final_tokens=run.sampling.max_tokens or self.limits.final_tokens,
        )
        self._ask = ask
        self._clock = clock
        self._clipped: set[str] = set()
        self._names: set[str] = set()
        self._at_work = 0
        self._before: tuple[str, ...] = ()
        self._ended: list[str] = []
        self._untold: deque[Step] = deque()
        """Steps that were stopped, and nobody has heard of."""

    def _cards(self, model: str | None = None) -> Sequence[ModelCard]:
        """Of `model`, else of those that may be asked; of all where they are not known."""
        names = {model} if model else self.taking_part | {self.run.model or ""}
        return [card for card in self.models if card.name in names] or self.models

    @property
    def context_tokens(self) -> int:
        """Of the models that may be asked, the least."""
        return _least_context(self._cards())

    def is_small(self, model: str | None = None) -> bool:
        """Whether `model` is known to be small; where none is named, all that may be asked. Others get what
        the caller said, and no parameters of ours."""
        return all(map(is_small, self._cards(model)))

    @property
    def limits(self) -> StepLimits:
        """Tokens per step, for the models' context and the caller's conversation."""
        return self._limits_of(self.context_tokens, self.is_small())

    def _limits_of(self, context: int, small: bool) -> StepLimits:
        fitted = self._fitted.get((context, small))
        if fitted is None:
            talk = sum(estimate_tokens(said.content) for said in self.run.messages)
            fitted = self._given.within(context, talk, self.run.sampling.max_tokens, small=small)
            self._fitted[context, small] = fitted
        return fitted

    def _suited(self, sampling: Sampling, guide: GuidedDecoding | None, model: str | None) -> Sampling:
        """The sampling of a step with what its model needs: a small one seldom ends by itself, and does not
        say what a text says under a penalty."""
        if not self.is_small(model):
            set_ = self._given.final_tokens if "final_tokens" in self._given.model_fields_set else None
            return sampling.over(Sampling(max_tokens=set_))
        context = _least_context(self._cards(model))
        most = Sampling(max_tokens=self._limits_of(context, True).final_tokens)
        return sampling.over(PLAIN.over(most) if guide is None and self.brings_text else most)

    def panel(self, most: int) -> list[str]:
        """At most so many of the models that live, which are expected to do best together; the most trusted
        first, of equals the largest."""
        length = partial(self.lengths.expected, self.question_kind)
        return choose_panel(self.trust, self.ranked(), most, length)

    def ranked(self) -> list[str]:
        """The models that live, the most trusted first, of equals the largest."""
        shares = {card.name: round(self.trust.accuracy(card.name).mean, 6) for card in self.models}
        cards = sorted(self.models, key=lambda card: (-shares[card.name], -card.parameters, card.name))
        return [card.name for card in cards]

    def trusted_model(
        self,
        agent: str,
        *,
        kind: Kind | None = None,
        among: Collection[str] = (),
        judged: Sequence[str] = (),
    ) -> str | None:
        """The model that a step of `agent` goes to: the most trusted at questions of `kind`, that of the run
        unless it is said, of those that live, or of `among` them. None where the caller or the agent's
        settings name one, and where it is the one that the agent takes by itself.

        `judged` are models whose work the step judges."""
        if self.run.model or agent in self.agents_with_models or not self.models:
            return None
        usual = max(self.models, key=lambda card: (card.parameters, card.name)).name
        names = [card.name for card in self.models if not among or card.name in among]
        trust = self.trust if kind is None else self.trust_of(kind)
        model = most_trusted(trust, names, usual, judged)
        if model is None or model == usual:
            return None
        if self.taking_part:
            self.taking_part.add(model)
        return model

    @property
    def brings_text(self) -> bool:
        """Whether the caller gives a text to work with, such as a document."""
        return any(estimate_tokens(said.content) >= TEXT_TOKENS for said in self.run.messages)

    @property
    def usage(self) -> Usage:
        """Of all steps so far, also of those that failed or were stopped."""
        return total_of(self.steps)

    @property
    def specialists(self) -> dict[str, str]:
        """The agents that a plan may name, with what each is good for."""
        return {name: said for name, said in self.agents.items() if name not in (COORDINATOR, CRITIC)}

    async def ask(
        self,
        agent: str,
        messages: tuple[ChatMessage, ...],
        *,
        name: str,
        sampling: Sampling | None = None,
        guide: GuidedDecoding | None = None,
        model: str | None = None,
        after: Sequence[str] | None = None,
        heard: Callable[[TextDelta], None] | None = None,
    ) -> StepResult:
        """The whole answer of one step. `name` is the step's own in the run; `model` goes over the run's.
        `after` are the steps that it builds on, for who watches: where it is not said, those that ended
        before this one and all at work beside it began. `heard` is told each part as it comes.

        Raises the step's error, which is recorded too; `BudgetExceeded` where the run's budget does not reach
        for it, or ended it; `ContentFiltered` where the answer is not whole for that reason."""
        answer: StepResult | None = None
        question = self._question(agent, messages, name, sampling, guide, model)
        async with aclosing(self._perform(question, after, last=False)) as items:
            async for item in items:
                if isinstance(item, StepResult):
                    answer = item
                elif heard is not None:
                    heard(item)
        assert answer is not None
        return answer

    async def stream(
        self,
        agent: str,
        messages: tuple[ChatMessage, ...],
        *,
        name: str,
        sampling: Sampling | None = None,
        guide: GuidedDecoding | None = None,
        model: str | None = None,
        after: Sequence[str] | None = None,
    ) -> AsyncGenerator[TextDelta | StepResult, None]:
        """The parts of one step as they come, and its `StepResult` last, for the caller. Where the budget's
        seconds end in its midst, what came is the answer, as one that ran out of tokens. Raises like
        `ask`."""
        question = replace(
            self._question(agent, messages, name, sampling, guide, model),
            prefix=self.resume_filter.rest,
            prefix_tokens=self.resume_filter.rest_tokens,
        )
        async with aclosing(self._perform(question, after, last=True)) as items:
            async for item in items:
                yield item

    async def tools(self, agent: str) -> tuple[Tool, ...]:
        """What `agent` can use now. Raises `NodeLost` when it is silent."""
        return await self._ask.tools(agent)

    async def use(
        self,
        agent: str,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        name: str,
        after: Sequence[str] | None = None,
    ) -> ToolResult:
        """What came of a tool of `agent`. It is a step as well, of which `name` and `after` say what they say
        in `ask`. What goes wrong in the tool itself is the result's `error`, and no error of the step.

        Raises `InvalidRequest` for a tool that the agent does not have, `BudgetExceeded` when no time is
        left, and the errors of a bus and of machines."""
        self._claim(name)
        use = ToolUse(name=name, agent=agent, tool=tool, arguments=arguments)
        known = await self._recalled(use, after)
        if known is not None and known.result is not None:
            return known.result
        use = replace(use, seconds=self.budget.seconds_for(name))
        await self._begun(use, after)
        began = self._clock()
        try:
            result = await self._ask.use(use)
        except OrchestraError as error:
            await self._failed(use, self._clock() - began, error)
            raise
        finally:
            self._at_work -= 1
        text, seconds = result.error or result.text, self._clock() - began
        step = Step(name=name, agent=agent, tool=tool, text=text, seconds=seconds)
        kept = await self._done(use, StepRecord(step=step, run_s=self.budget.seconds, result=result))
        return kept.result or result

    def _claim(self, name: str) -> None:
        if name in self._names:
            raise InternalError(f"two steps of a run have the name {name!r}")
        self._names.add(name)

    def _question(
        self,
        agent: str,
        messages: tuple[ChatMessage, ...],
        name: str,
        sampling: Sampling | None,
        guide: GuidedDecoding | None,
        model: str | None,
    ) -> GenerationRequest:
        self._claim(name)
        return GenerationRequest(
            name=name,
            agent=agent,
            messages=messages,
            sampling=self._suited(sampling or Sampling(), guide, model or self.run.model),
            guide=guide,
            model=model or self.run.model,
            priority=self.run.priority,
            labels=self.run.labels,
            extra=self.run.extra,
        )

    async def _perform(
        self, question: GenerationRequest, after: Sequence[str] | None, *, last: bool
    ) -> AsyncGenerator[TextDelta | StepResult, None]:
        asked, known = question, await self._recalled(question, after)
        if known is not None:
            yield TextDelta(text=known.step.text, tokens=known.step.usage.completion_tokens)
            yield known.answer
            return
        grant = await self._granted(question, last)
        if grant.max_tokens != question.sampling.max_tokens:
            sampling = question.sampling.model_copy(update={"max_tokens": grant.max_tokens})
            question = replace(question, sampling=sampling)
        question = replace(question, seconds=grant.seconds)
        await self._begun(question, after)
        began = self._clock()
        work, over = PartialStep(question, self.budget.read), False
        try:
            if question.prefix:
                yield TextDelta(text=question.prefix, tokens=question.prefix_tokens)
            async with aclosing(self._ask.generate(question)) as items:
                async for item in items:
                    if isinstance(item, Finish):
                        work.finish = item
                    elif isinstance(item, StepAccepted):
                        work.accepted_by = item.model
                    else:
                        work.take(item)
                        yield item
            if work.finish is None:
                raise InternalError(f"step {question.name!r} of {question.agent} ended without a Finish")
            if work.finish.reason == "content_filter" and not last:  # no whole answer to go on with
                raise ContentFiltered(f"a content filter cut the answer of model {work.model!r} off")
            over = True
        except OrchestraError as error:
            over = True
            late = isinstance(error, DeadlineExceeded) and self.budget.ran_out(grant, began)
            if not (late and last and work.tokens):
                if late:
                    error = self.budget.out_of_time(question.name)
                await self._failed(work, self._clock() - began, error)
                raise error
            self.budget.shortened.append(question.name)
            work.finish = Finish(reason="length", usage=work.usage, model=work.model)
        finally:
            self.budget.end(question, grant, work.usage)
            self._at_work -= 1
            if not over:
                self._stopped(work.step(self._clock() - began))
        step = work.step(self._clock() - began)
        yield (await self._done(asked, StepRecord(step=step, run_s=self.budget.seconds), last=last)).answer

    async def _granted(self, question: GenerationRequest, last: bool) -> Allowance:
        try:
            return self.budget.begin(question, last=last)
        except BudgetExceeded as error:
            await self.progress(f"{question.name}: not begun: {error.message}")
            raise

    async def _begun(self, question: GenerationRequest | ToolUse, after: Sequence[str] | None) -> None:
        if not self._at_work and self._ended:
            self._before, self._ended = tuple(self._ended), []
        self._at_work += 1
        after = self.builds_on.get(question.name) if after is None else after
        await self.event(
            "step_started",
            step=question.name,
            agent=question.agent,
            model="" if isinstance(question, ToolUse) else question.model or "",
            after=self._before if after is None else tuple(after),
        )

    async def _failed(self, work: PartialStep | ToolUse, seconds: float, error: OrchestraError) -> None:
        if isinstance(work, ToolUse):
            step = Step(
                name=work.name,
                agent=work.agent,
                tool=work.tool,
                finish_reason="error",
                seconds=seconds,
                error=error.body(),
            )
        else:
            step = work.step(seconds, error.body())
        self.step_cache.spent(step, self.budget.seconds)
        await self._record(step, f"{step.name}: {step.agent} failed after {seconds:.1f} s: {error.message}")

    def _stopped(self, step: Step) -> None:
        """Record a step that its pattern stopped. Whoever is cancelled must not wait, so that others hear of
        it with what happens next."""
        self.step_cache.spent(step, self.budget.seconds)
        self.steps.append(step)
        self._ended.append(step.name)
        self._untold.append(step)

    async def tell_stopped(self) -> None:
        """Tell who watches of steps that were stopped, where nobody did."""
        while self._untold:
            step = self._untold.popleft()
            await self._ask.event("step_ended", {"step": step})
            tokens = step.usage.completion_tokens
            told = f"{step.name}: {step.agent} was stopped after {step.seconds:.1f} s and {tokens} tokens"
            await self._ask.progress(told, step)

    async def _done(
        self, asked: GenerationRequest | ToolUse, kept: StepRecord, *, last: bool = False
    ) -> StepRecord:
        """Record the step before anybody sees what came of it. Returns the one that counts."""
        try:
            kept = await self.step_cache.keep(asked, kept, last=last)
        except asyncio.CancelledError:  # its tokens count, whoever wanted its text
            self._stopped(kept.step.model_copy(update={"finish_reason": "cancelled"}))
            raise
        step = kept.step
        took = f"took {step.seconds:.1f} s for {step.usage.completion_tokens} tokens"
        if kept.result is not None:
            wrong = f": {kept.result.error}" if kept.result.error else ""
            took = f"used {step.tool} for {step.seconds:.1f} s{wrong}"
        await self._record(step, f"{step.name}: {step.agent} {took}")
        return kept

    async def _recalled(
        self, asked: GenerationRequest | ToolUse, after: Sequence[str] | None
    ) -> StepRecord | None:
        """The step from the record, if it was done before. People heard of it then, programs hear again."""
        for step in self.step_cache.take_spent():
            self.budget.recorded(step.usage)
            await self._over(step, recorded=True)
        await self.step_cache.next()
        known = self.step_cache.find(asked)
        if known is None:
            return None
        self.budget.older(known.run_s)
        if isinstance(asked, GenerationRequest):
            self.budget.recorded(known.step.usage)
        await self._begun(asked, after)
        self._at_work -= 1
        await self._over(known.step, recorded=True)
        await self.progress(f"{asked.name}: {asked.agent} did this before, and is not asked again")
        return known

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of length 1 for each text. Raises `NoNode` when no embedding model is to be had."""
        return await self._ask.embed(texts)

    async def say(self, answer: StepResult) -> AsyncGenerator[TextDelta | StepResult, None]:
        """Give the caller an answer that a step has already, all at once."""
        if answer.text:
            yield TextDelta(text=answer.text, tokens=answer.finish.usage.completion_tokens)
        yield answer

    async def progress(self, text: str) -> None:
        """Tell who watches what happens."""
        await self.tell_stopped()
        await self._ask.progress(text, None)

    async def warn(self, text: str) -> None:
        """Tell who watches, and the caller with the answer."""
        self.notes.append(text)
        await self.event("warning", text=text)
        await self.progress(text)

    async def clipped(self, what: str, text: str, tokens: int) -> str:
        """`text` as it is passed on, of about so many tokens. Where it had to be cut, the caller is told,
        once of each `what`."""
        kept = clip(text, tokens)
        if kept != text.strip():
            await self.warn_cut(what, estimate_tokens(text), tokens)
        return kept

    async def warn_cut(self, what: str, needed: float, tokens: int) -> None:
        """Tell the caller that `what` had to be cut, once."""
        if what not in self._clipped:
            self._clipped.add(what)
            await self.warn(
                f"{what} had to be cut: about {tokens} of {needed:.0f} tokens were kept, since the models "
                f"take {self.context_tokens} in all"
            )

    async def event(self, type: str, **data: Any) -> None:
        """Tell programs that watch, such as a page that draws the run. `data` is JSON, its names are those of
        the event beside `run`, `seq`, `at` and `type`: see `orchestration.run_events`."""
        await self.tell_stopped()
        await self._ask.event(type, data)

    async def settle(self) -> None:
        """Say what the budget cut. Call it once, when the pattern has ended."""
        await self.tell_stopped()
        said = self.budget.note()
        if said:
            await self.warn(said)
        account = self.budget.account()
        if account:
            self.report["budget"] = account

    async def _record(self, step: Step, text: str) -> None:
        await self._over(step)
        await self._ask.progress(text, step)

    async def _over(self, step: Step, **said: bool) -> None:
        self.steps.append(step)
        self._ended.append(step.name)
        await self.event("step_ended", step=step, **said)


def _least_context(cards: Sequence[ModelCard]) -> int:
    return min((card.context_tokens or UNKNOWN_CONTEXT for card in cards), default=MIN_CONTEXT)
