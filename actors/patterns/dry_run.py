"""Performs a pattern without a model: each step is answered at once, with its prompt or a small value of its
schema. It shows which steps a pattern asks, and checks the rules of patterns."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from orchestration.errors import InternalError, InvalidRequest, NoNode, NoResponders, OrchestraError
from orchestration.messages import (
    ChatMessage,
    Finish,
    ModelCard,
    Run,
    Step,
    TextDelta,
    Usage,
)
from orchestration.patterns import (
    BudgetTracker,
    Catalogue,
    GenerationRequest,
    RunContext,
    RunFacts,
    StepRequest,
    StepResult,
    StepRunner,
)
from orchestration.patterns.step_request import StepAlive, StepEvent
from orchestration.roles import load_roles
from orchestration.schema_instance import schema_instance

LIMIT_S = 10.0
MODEL = "dry-run"


@dataclass(slots=True)
class DryRunResult:
    """The text of the answer, and what the context recorded."""

    text: str
    steps: list[Step]
    notes: list[str]
    report: dict[str, Any]


async def dry_run(
    catalogue: Catalogue, name: str, question: str, settings: Mapping[str, Any]
) -> DryRunResult:
    """Perform the pattern twice. Raises `InvalidRequest` for wrong settings, and `InternalError` where the
    pattern breaks a rule: it must end, its answer must come last, and the names of its steps must be the same
    each time."""
    run = Run(
        id="dry-run.1",
        pattern=name,
        messages=(ChatMessage(role="user", content=question),),
        settings=dict(settings),
    )
    first, again = await _performed(catalogue, run), await _performed(catalogue, run)
    names = [sorted(step.name for step in each.steps) for each in (first, again)]
    if names[0] != names[1]:
        raise InternalError(
            "its steps differ from one performance to the next, so a run could not be resumed: "
            f"{', '.join(names[0])}; then {', '.join(names[1])}"
        )
    return first


async def _performed(catalogue: Catalogue, run: Run) -> DryRunResult:
    roles = {name: role.description for name, role in load_roles({}).items()}
    models = (ModelCard(name=MODEL),)
    facts = RunFacts(agents=roles, models=models, patterns=catalogue)
    budget = BudgetTracker(run.budget, clock=time.perf_counter, final_tokens=facts.limits.final_tokens)
    context = RunContext(run, facts, StepRunner(_Echo(frozenset(roles)), budget, time.perf_counter))
    text: list[str] = []
    answer: StepResult | None = None
    try:
        async with asyncio.timeout(LIMIT_S), aclosing(catalogue.find(run.pattern)(run, context)) as items:
            async for item in items:
                if answer is not None:
                    raise InternalError("it yields more after its answer")
                if isinstance(item, StepResult):
                    answer = item
                elif isinstance(item, TextDelta):
                    text = [*text, item.text] if not item.replaces else [item.text[item.replaces :]]
                else:
                    name = type(item).__name__
                    raise InternalError(f"it yields {name}, which is neither TextDelta nor StepResult")
    except TimeoutError as error:
        raise InternalError(f"it does not end within {LIMIT_S:g} s") from error
    except OrchestraError:
        raise
    except Exception as error:
        raise InternalError(f"it fails with {type(error).__name__}: {error}") from error
    if answer is None:
        raise InternalError("it ends without an answer")
    return DryRunResult("".join(text), context.steps, context.notes, context.report.sections)


@dataclass(frozen=True, slots=True)
class _Echo:
    """A `StepExecutor` without a model."""

    agents: frozenset[str]
    messages: list[str] = field(default_factory=list)

    async def generate(self, question: GenerationRequest) -> AsyncGenerator[TextDelta | Finish, None]:
        if question.agent not in self.agents:
            raise InvalidRequest(
                f"step {question.name!r}: no agent {question.agent!r}; there are "
                f"{', '.join(sorted(self.agents))}"
            )
        guide = question.guide
        if guide is not None and guide.json_schema is not None:
            text = json.dumps(schema_instance(guide.json_schema))
        else:
            text = question.messages[-1].content
        tokens = len(text.split())
        yield TextDelta(text=text, tokens=tokens)
        usage = Usage(prompt_tokens=tokens, completion_tokens=tokens, estimated=True)
        yield Finish(reason="stop", usage=usage, node="here", model=question.model or MODEL)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise NoNode("a dry run has no embedding model")

    async def perform(self, request: StepRequest) -> AsyncGenerator[StepEvent, None]:
        raise NoResponders("a dry run has no agent with tools")
        yield StepAlive()

    async def progress(self, text: str, step: Step | None) -> None:
        self.messages.append(text)

    async def event(self, kind: str, data: dict[str, Any]) -> None:
        self.messages.append(kind)
