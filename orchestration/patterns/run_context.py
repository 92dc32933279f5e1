"""What a pattern knows of its run, and how it asks for steps: the one argument of every pattern."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from orchestration.bandit.advice import Advisor
from orchestration.bandit.durations import Durations
from orchestration.errors import InternalError, InvalidRequest, NoResponders
from orchestration.messages import (
    ChatMessage,
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
from orchestration.patterns.base import NO_OPTIONS, GenerationRequest, StepOptions, StepResult, ToolUse
from orchestration.patterns.budget_tracker import BudgetTracker
from orchestration.patterns.clipping import clip, estimate_tokens
from orchestration.patterns.executor import LocalTools
from orchestration.patterns.grounding_context import PLAIN
from orchestration.patterns.limits import MIN_CONTEXT, UNKNOWN_CONTEXT, StepLimits
from orchestration.patterns.resume_filter import ResumeFilter
from orchestration.patterns.run_report import RunReport
from orchestration.patterns.step_request import StepDone, StepRequest
from orchestration.patterns.step_runner import StepRunner
from orchestration.query_analysis.features import Kind
from orchestration.small_models import is_small
from orchestration.trust.assignment import most_trusted
from orchestration.trust.lengths import AnswerLengths
from orchestration.trust.panel import choose_panel
from orchestration.trust.trust import Trust

COORDINATOR = "coordinator"
CRITIC = "critic"
TEXT_TOKENS = 400
"""A message of so many tokens is more than a question: it brings a text, whose words the answer may
repeat."""


class InnerPattern(Protocol):
    """A pattern as another one performs it: see `orchestration.patterns.definition`."""

    def inside(self, run: Run, context: RunContext) -> AsyncGenerator[TextDelta | StepResult, None]:
        """Perform it as a part of another pattern, whose settings `run` has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """The facts that are known when a run begins. `agents` maps each agent's name to what it is good for;
    `models` are the chat models that live; `defaults` are a deployment's settings of patterns, by their
    names."""

    agents: Mapping[str, str]
    models: Sequence[ModelCard] = ()
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limits: StepLimits = field(default_factory=StepLimits)
    patterns: Mapping[str, InnerPattern] = field(default_factory=dict)
    """Those that the process knows, by their names, for one that leaves the work to another."""
    taking_part: Collection[str] = ()
    """Models that are asked beside the run's own; empty where that is not known: any of `models`."""
    agents_with_models: Collection[str] = ()
    """Agents whose settings name a model that lives, which goes before what is known of others."""
    trust_of: Callable[[Kind | None], Trust] = lambda kind: Trust()
    """How often each model is right at a kind of question; None is the kind of this run's."""
    question_kind: Kind = "factual"
    """The kind of the run's question: see `orchestration.query_analysis.features`."""
    lengths: AnswerLengths = field(default_factory=AnswerLengths)
    """How much models write, from earlier runs of the process too."""
    durations: Durations = field(default_factory=Durations)
    """How long agents take for a task, from earlier runs of the process too."""
    advisor: Advisor | None = None
    """How earlier runs went, where that is recorded."""
    tools: LocalTools | None = None
    """The tools of this process, where it is an agent that does one step of the run."""


class RunContext:
    """One run as its pattern sees it: what is known, and what it can ask for."""

    def __init__(
        self, run: Run, facts: RunFacts, runner: StepRunner, resume_filter: ResumeFilter | None = None
    ) -> None:
        self.run = run
        self.facts = facts
        self.runner = runner
        self.resume_filter = resume_filter or ResumeFilter()
        """Knows what the caller has of the answer already, when a run is taken up: the step whose text is
        passed on to the caller goes on from there."""
        self.trust = facts.trust_of(None)
        """How often each model is right at this kind of question."""
        self.taking_part = set(facts.taking_part)
        self._clipped: set[str] = set()
        self.source_numbers: dict[str, int] = {}
        """The number of the first source of each step, by name: see `specialist_step.first_source`."""
        self._fitted: dict[tuple[int, bool], StepLimits] = {}

    @property
    def agents(self) -> Mapping[str, str]:
        return self.facts.agents

    @property
    def models(self) -> Sequence[ModelCard]:
        return self.facts.models

    @property
    def budget(self) -> BudgetTracker:
        return self.runner.budget

    @property
    def report(self) -> RunReport:
        return self.runner.report

    @property
    def steps(self) -> list[Step]:
        """The finished steps."""
        return self.runner.report.steps

    @property
    def notes(self) -> list[str]:
        return self.runner.report.notes

    @property
    def usage(self) -> Usage:
        """Tokens of all steps so far, also of those that failed or were stopped."""
        return self.report.usage

    def use_run(self, run: Run, *, audit: bool) -> None:
        """Go on with the run as `auto` has set it up. `audit` has all voters answer, to learn of them."""
        self.run = run
        if audit:
            self.trust = replace(self.trust, audit=True)

    def restrict_to(self, models: Collection[str]) -> None:
        """Only these models take part from now on."""
        self.taking_part |= set(models)
        self.trust = self.trust.among(models)

    def builds_on(self, name: str, after: Sequence[str]) -> None:
        """Say on which steps a step builds, before it begins; see `after` in `ask`."""
        self.runner.builds_on[name] = tuple(after)

    def _cards(self, model: str | None = None) -> Sequence[ModelCard]:
        """The card of `model`, else those of the models that take part; all where these are not known."""
        names = {model} if model else self.taking_part | {self.run.model or ""}
        return [card for card in self.models if card.name in names] or self.models

    @property
    def context_tokens(self) -> int:
        """The smallest context of the models that take part."""
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
            talk = sum(estimate_tokens(message.content) for message in self.run.messages)
            fitted = self.facts.limits.for_context(context, talk, self.run.sampling.max_tokens, small=small)
            self._fitted[context, small] = fitted
        return fitted

    def _suited(self, sampling: Sampling, guide: GuidedDecoding | None, model: str | None) -> Sampling:
        """The sampling of a step with what its model needs: a small one seldom ends by itself, and does not
        say what a text says under a penalty."""
        if not self.is_small(model):
            set_ = (
                self.facts.limits.final_tokens
                if "final_tokens" in self.facts.limits.model_fields_set
                else None
            )
            return sampling.over(Sampling(max_tokens=set_))
        context = _least_context(self._cards(model))
        final = Sampling(max_tokens=self._limits_of(context, True).final_tokens)
        return sampling.over(PLAIN.over(final) if guide is None and self.brings_text else final)

    def panel(self, max_models: int) -> list[str]:
        """The live models that are expected to do best together, at most `max_models`. The most trusted comes
        first; of two that are trusted alike, the larger."""
        length = partial(self.facts.lengths.expected, self.facts.question_kind)
        return choose_panel(self.trust, self.ranked(), max_models, length)

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
        """The most trusted model for a step of `agent`, by questions of `kind` (default: the kind of the
        run's question). It is one of the live models, or of those in `among`. None if the caller or the
        agent's settings name a model, or if the agent would choose the same one.

        `judged` are models whose work the step judges."""
        if self.run.model or agent in self.facts.agents_with_models or not self.models:
            return None
        usual = max(self.models, key=lambda card: (card.parameters, card.name)).name
        names = [card.name for card in self.models if not among or card.name in among]
        trust = self.trust if kind is None else self.facts.trust_of(kind)
        model = most_trusted(trust, names, usual, judged)
        if model is None or model == usual:
            return None
        if self.taking_part:
            self.taking_part.add(model)
        return model

    @property
    def brings_text(self) -> bool:
        """Whether the caller gives a text to work with, such as a document."""
        return any(estimate_tokens(message.content) >= TEXT_TOKENS for message in self.run.messages)

    @property
    def specialists(self) -> dict[str, str]:
        """The agents that a plan may name, with what each is good for."""
        return {name: use for name, use in self.agents.items() if name not in (COORDINATOR, CRITIC)}

    async def ask(
        self,
        agent: str,
        messages: tuple[ChatMessage, ...],
        *,
        name: str,
        options: StepOptions = NO_OPTIONS,
        on_delta: Callable[[TextDelta], None] | None = None,
    ) -> StepResult:
        """The whole answer of one model call by `agent`, as a step of that `name`, which no other step of the
        run has. `on_delta` gets the text as it comes.

        Raises the step's error, which is recorded too; `BudgetExceeded` where the run's budget does not reach
        for it, or ended it; `ContentFiltered` where the answer is not whole for that reason."""
        answer: StepResult | None = None
        self.runner.claim(name)
        request = self._request(agent, messages, name, options)
        async with aclosing(self.runner.generate(request, options.after)) as items:
            async for item in items:
                if isinstance(item, StepResult):
                    answer = item
                elif on_delta is not None:
                    on_delta(item)
        assert answer is not None
        return answer

    async def stream(
        self,
        agent: str,
        messages: tuple[ChatMessage, ...],
        *,
        name: str,
        options: StepOptions = NO_OPTIONS,
    ) -> AsyncGenerator[TextDelta | StepResult, None]:
        """The parts of one step as they come, and its `StepResult` last, for the caller. Where the budget's
        seconds end in its midst, what came is the answer, as one that ran out of tokens. Raises like
        `ask`."""
        self.runner.claim(name)
        request = replace(
            self._request(agent, messages, name, options),
            prefix=self.resume_filter.rest,
            prefix_tokens=self.resume_filter.rest_tokens,
        )
        async with aclosing(self.runner.generate(request, options.after, last=True)) as items:
            async for item in items:
                yield item

    async def use(self, agent: str, tool: str, arguments: Mapping[str, Any], *, name: str) -> ToolResult:
        """What a tool of `agent` gave. It is a step as well, called `name`. What goes wrong in the tool is
        the result's `error`, and no error of the step.

        Raises `InvalidRequest` for a tool that the agent does not have, `BudgetExceeded` when no time is
        left, and the errors of a bus and of machines."""
        self.runner.claim(name)
        if self.facts.tools is not None:
            return await self.runner.use(
                ToolUse(name=name, agent=agent, tool=tool, arguments=arguments), self.facts.tools
            )
        request = StepRequest(
            kind="tool", run=self.run, name=name, agent=agent, tool=tool, arguments=dict(arguments)
        )
        try:
            async with aclosing(self.delegate(request)) as items:
                async for item in items:
                    if isinstance(item, StepDone) and item.result is not None:
                        return item.result
        except NoResponders as error:
            raise InvalidRequest(f"{agent} has no tool {tool!r}; its tools: none", param="tool") from error
        raise InternalError(f"step {name!r} of {agent} ended without a result")

    async def delegate(self, request: StepRequest) -> AsyncGenerator[TextDelta | StepDone, None]:
        """Have an agent with tools do a step: the text for the caller as it comes, then the end.

        Raises `NoResponders` when no agent of that name has tools, `BudgetExceeded`, and the step's error."""
        main = None
        if request.kind != "tool":
            options = StepOptions(sampling=request.sampling, guide=request.guide, model=request.model)
            main = self._request(request.agent, request.messages, request.name, options)
        request = request.model_copy(
            update={
                "models": tuple(self.taking_part),
                "prefix": self.resume_filter.rest if request.kind == "answer" else "",
                "prefix_tokens": self.resume_filter.rest_tokens if request.kind == "answer" else 0,
            }
        )
        async with aclosing(self.runner.delegate(request, main)) as items:
            async for item in items:
                yield item

    async def local_tools(self, agent: str) -> tuple[Tool, ...]:
        """What `agent` can use in this process: nothing where this is not the agent's."""
        return () if self.facts.tools is None else await self.facts.tools.tools(agent)

    def _request(
        self,
        agent: str,
        messages: tuple[ChatMessage, ...],
        name: str,
        options: StepOptions,
    ) -> GenerationRequest:
        sampling, guide, model = options.sampling, options.guide, options.model
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

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of length 1 for each text. Raises `NoNode` without an embedding model."""
        return await self.runner.executor.embed(texts)

    async def say(self, answer: StepResult) -> AsyncGenerator[TextDelta | StepResult, None]:
        """Give the caller the answer of a finished step, all at once."""
        if answer.text:
            yield TextDelta(text=answer.text, tokens=answer.finish.usage.completion_tokens)
        yield answer

    async def progress(self, text: str) -> None:
        """Tell people who watch what happens."""
        await self.runner.progress(text)

    async def warn(self, text: str) -> None:
        """Tell those who watch, and add a note for the caller to the answer."""
        self.notes.append(text)
        await self.event("warning", text=text)
        await self.progress(text)

    async def clipped(self, what: str, text: str, tokens: int) -> str:
        """`text` cut to about `tokens` tokens. The caller is warned of a cut, once for each `what`."""
        clipped_text = clip(text, tokens)
        if clipped_text != text.strip():
            await self.warn_cut(what, estimate_tokens(text), tokens)
        return clipped_text

    async def warn_cut(self, what: str, needed: float, tokens: int) -> None:
        """Tell the caller that `what` had to be cut, once."""
        if what not in self._clipped:
            self._clipped.add(what)
            await self.warn(
                f"{what} had to be cut: about {tokens} of {needed:.0f} tokens were kept, since the models "
                f"take {self.context_tokens} in all"
            )

    async def event(self, type: str, **data: Any) -> None:
        """Publish an event for programs, such as a page that draws the run. `data` are the fields of the
        event as JSON, beside `run`, `seq`, `at` and `type`: see `orchestration.run_events`."""
        await self.runner.event(type, **data)

    async def settle(self) -> None:
        """Warn of what the budget cut. Call it once, when the pattern has ended."""
        await self.runner.tell_stopped()
        note = self.budget.note()
        if note:
            await self.warn(note)
        account = self.budget.account()
        if account:
            self.report["budget"] = account


def _least_context(cards: Sequence[ModelCard]) -> int:
    return min((card.context_tokens or UNKNOWN_CONTEXT for card in cards), default=MIN_CONTEXT)
