"""A `StepExecutor` that answers from a script, so that a pattern's logic can be tested without a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any

from pydantic_core import to_json

from orchestration.errors import NoResponders, OrchestraError
from orchestration.messages import (
    ChatMessage,
    Finish,
    ModelCard,
    Run,
    Step,
    TextDelta,
    Tool,
    ToolResult,
    Usage,
)
from orchestration.patterns import (
    BUILT_IN,
    BudgetTracker,
    GenerationRequest,
    Pattern,
    ResumeFilter,
    RunContext,
    RunFacts,
    StepCache,
    StepLimits,
    StepRequest,
    StepResult,
    StepRunner,
    ToolUse,
)
from orchestration.patterns.base import StepAccepted
from orchestration.patterns.step_request import StepAlive, StepEvent
from orchestration.run_events import EVENT_TYPES, RunEvent, parse_events

AGENTS = {
    "coordinator": "plans",
    "research": "facts",
    "reasoning": "logic",
    "creative": "ideas",
    "code": "programs",
    "critic": "reviews",
}
SPECIALISTS = ("research", "reasoning", "creative", "code")

Reply = str | OrchestraError
Script = Mapping[str, Reply | Sequence[Reply]]
"""By step name, or by agent: what it answers, one after another, the last one for ever."""


def plan_json(*steps: tuple[str, str, int]) -> str:
    return json.dumps(
        {
            "reason": "because",
            "steps": [{"specialist": name, "task": task, "stage": stage} for name, task, stage in steps],
        }
    )


@dataclass
class Scripted:
    """Says its lines word by word, one token each. `meet` makes steps of that name wait for each other."""

    script: Script
    meet: Mapping[str, asyncio.Barrier] = field(default_factory=dict)
    asked: list[GenerationRequest] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    told: list[Step] = field(default_factory=list)
    embedded: list[tuple[str, ...]] = field(default_factory=list)
    tool_results: Mapping[str, Mapping[str, ToolResult | OrchestraError]] = field(default_factory=dict)
    """By agent and by tool: what comes of each use."""
    used: list[ToolUse] = field(default_factory=list)
    happened: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0

    async def generate(
        self, question: GenerationRequest
    ) -> AsyncGenerator[StepAccepted | TextDelta | Finish, None]:
        self.asked.append(question)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            if question.name in self.meet:
                async with asyncio.timeout(5):
                    await self.meet[question.name].wait()
            words = self._line(question).split(" ")
            for index, word in enumerate(words):
                yield TextDelta(text=word if index == 0 else f" {word}")
            usage = Usage(prompt_tokens=10, completion_tokens=len(words))
            yield Finish(reason="stop", usage=usage, node="n1", model=question.model or "m")
        finally:
            self.open_now -= 1

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """What a text is about is its first letter."""
        self.embedded.append(tuple(texts))
        return [[float(text[:1].lower() == letter) for letter in ascii_lowercase] for text in texts]

    async def perform(self, request: StepRequest) -> AsyncGenerator[StepEvent, None]:
        raise NoResponders(f"no agent {request.agent!r} has tools")
        yield StepAlive()

    async def tools(self, agent: str) -> tuple[Tool, ...]:
        return tuple(Tool(name=name) for name in self.tool_results.get(agent, ()))

    async def use(self, use: ToolUse) -> ToolResult:
        self.used.append(use)
        result = self.tool_results[use.agent][use.tool]
        if isinstance(result, OrchestraError):
            raise result
        return result

    async def progress(self, text: str, step: Step | None) -> None:
        self.said.append(text)
        if step is not None:
            self.told.append(step)

    async def event(self, type: str, data: dict[str, Any]) -> None:
        line = to_json({"run": "a.1", "seq": 0, "at": 0.0, "type": type} | data, exclude_none=True)
        (event,) = parse_events(line)
        described = EVENT_TYPES.get(type, RunEvent)
        assert isinstance(event, described), f"the fields of {type!r} have the types that its model says"
        assert described is RunEvent or not event.model_extra, f"the model of {type!r} has all its fields"
        self.happened.append((type, data))

    def _line(self, question: GenerationRequest) -> str:
        lines = self.script.get(question.name, self.script.get(question.agent, "words of wisdom"))
        if isinstance(lines, str | OrchestraError):
            reply: Reply = lines
        else:
            before = sum(q.name == question.name for q in self.asked[:-1])
            reply = lines[min(before, len(lines) - 1)]
        if isinstance(reply, OrchestraError):
            raise reply
        return reply

    def question(self, name: str) -> GenerationRequest:
        return next(question for question in self.asked if question.name == name)


def counting_clock() -> Callable[[], float]:
    """A clock that is a second later each time it is read."""
    ticks = iter(range(10**9))
    return lambda: float(next(ticks))


def make_run(text: str = "Why is the sky blue?", **fields: object) -> Run:
    said = {"id": "a.1", "pattern": "maestro", "messages": (ChatMessage(role="user", content=text),)}
    return Run.model_validate(said | fields)


def make_context(
    run: Run,
    ask: Scripted,
    *,
    agents: Mapping[str, str] = AGENTS,
    clock: Callable[[], float] | None = None,
    limits: StepLimits | None = None,
    models: Sequence[ModelCard] = (),
    step_cache: StepCache | None = None,
    resume_filter: ResumeFilter | None = None,
    **facts: Any,
) -> RunContext:
    """A run whose steps `ask` answers. Where that has tools, it is the agent that does the steps too."""
    clock = clock or counting_clock()
    has_tools = bool(ask.tool_results) or type(ask).tools is not Scripted.tools
    known = RunFacts(
        agents=agents,
        models=tuple(models),
        limits=limits or StepLimits(),
        patterns=BUILT_IN,
        tools=ask if has_tools else None,
        **facts,
    )
    final = run.sampling.max_tokens or known.limits.final_tokens
    budget = BudgetTracker(run.budget, clock=clock, final_tokens=final)
    return RunContext(run, known, StepRunner(ask, budget, clock, step_cache=step_cache), resume_filter)


async def perform(
    pattern: Pattern,
    run: Run,
    ask: Scripted,
    *,
    agents: Mapping[str, str] = AGENTS,
    limits: StepLimits | None = None,
    models: Sequence[ModelCard] = (),
) -> tuple[str, StepResult, RunContext]:
    """The text the caller sees, the last answer, and the context with its steps."""
    context = make_context(run, ask, agents=agents, limits=limits, models=models)
    text: list[str] = []
    answer: StepResult | None = None
    async with aclosing(pattern(run, context)) as items:
        async for item in items:
            if isinstance(item, StepResult):
                answer = item
            else:
                assert answer is None, "the answer comes last"
                text.append(item.text)
    assert answer is not None
    return "".join(text), answer, context
