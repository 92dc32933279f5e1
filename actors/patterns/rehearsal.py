"""Performs a pattern without a model: every step is answered at once, with what it was asked, or the least
that its form allows. Shows which steps a pattern asks, and that it keeps to the rules."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from orchestration.errors import InternalError, InvalidRequest, NoNode, OrchestraError
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
from orchestration.patterns import Catalogue, GenerationRequest, RunContext, StepResult, ToolUse
from orchestration.roles import load_roles

LIMIT_S = 10.0
MODEL = "rehearsal"
DEPTH = 6
"""Of forms that refer to themselves."""


@dataclass(slots=True)
class RehearsalResult:
    """What came of it."""

    text: str
    steps: list[Step]
    notes: list[str]
    report: dict[str, Any]


async def rehearse(
    catalogue: Catalogue, name: str, question: str, settings: Mapping[str, Any]
) -> RehearsalResult:
    """Perform the pattern twice. Raises `InvalidRequest` for settings that are wrong, and `InternalError`
    where it keeps to a rule not: it ends, its answer comes last, the names of its steps are the same each
    time."""
    run = Run(
        id="rehearsal.1",
        pattern=name,
        messages=(ChatMessage(role="user", content=question),),
        settings=dict(settings),
    )
    first, again = await _performed(catalogue, run), await _performed(catalogue, run)
    names = [sorted(step.name for step in each.steps) for each in (first, again)]
    if names[0] != names[1]:
        raise InternalError(
            "its steps differ from one performance to the next, so that a run could not be taken up: "
            f"{', '.join(names[0])}; then {', '.join(names[1])}"
        )
    return first


async def _performed(catalogue: Catalogue, run: Run) -> RehearsalResult:
    roles = {name: role.description for name, role in load_roles({}).items()}
    models = (ModelCard(name=MODEL),)
    context = RunContext(run, _Echo(frozenset(roles)), agents=roles, clock=time.perf_counter, models=models)
    context.patterns = catalogue
    said: list[str] = []
    answer: StepResult | None = None
    try:
        async with asyncio.timeout(LIMIT_S), aclosing(catalogue.find(run.pattern)(run, context)) as items:
            async for item in items:
                if answer is not None:
                    raise InternalError("something comes after its answer")
                if isinstance(item, StepResult):
                    answer = item
                elif isinstance(item, TextDelta):
                    said = [*said, item.text] if not item.replaces else [item.text[item.replaces :]]
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
    return RehearsalResult("".join(said), context.steps, context.notes, context.report)


@dataclass(frozen=True, slots=True)
class _Echo:
    """An `Ask` without a model."""

    agents: frozenset[str]
    told: list[str] = field(default_factory=list)

    async def generate(self, question: GenerationRequest) -> AsyncGenerator[TextDelta | Finish, None]:
        if question.agent not in self.agents:
            raise InvalidRequest(
                f"step {question.name!r}: no agent {question.agent!r}; there are "
                f"{', '.join(sorted(self.agents))}"
            )
        guide = question.guide
        if guide is not None and guide.json_schema is not None:
            text = json.dumps(least(guide.json_schema))
        else:
            text = question.messages[-1].content
        tokens = len(text.split())
        yield TextDelta(text=text, tokens=tokens)
        usage = Usage(prompt_tokens=tokens, completion_tokens=tokens, estimated=True)
        yield Finish(reason="stop", usage=usage, node="here", model=question.model or MODEL)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise NoNode("a rehearsal has no embedding model")

    async def tools(self, agent: str) -> tuple[Tool, ...]:
        return ()

    async def use(self, use: ToolUse) -> ToolResult:
        raise InvalidRequest(f"a rehearsal has no tool {use.tool!r}")

    async def progress(self, text: str, step: Step | None) -> None:
        self.told.append(text)

    async def event(self, kind: str, data: dict[str, Any]) -> None:
        self.told.append(kind)


def least(schema: Any, depth: int = 0) -> Any:
    """The smallest value, or nearly so, that a JSON schema allows, as far as guides use them."""
    if not isinstance(schema, Mapping) or depth > DEPTH:
        return None
    for known in ("const", "default"):
        if known in schema:
            return schema[known]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("anyOf", "oneOf"):
        if schema.get(several):
            return least(schema[several][0], depth + 1)
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: least(properties.get(name), depth + 1) for name in schema.get("required", ())}
    if kind == "array":
        first = schema.get("prefixItems", ())
        more = max(0, schema.get("minItems", 0) - len(first))
        return [least(each, depth + 1) for each in (*first, *[schema.get("items")] * more)]
    if kind == "string":
        return "x" * max(1, schema.get("minLength", 1))
    plain = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1.0), "boolean": True}
    return plain.get(kind) if isinstance(kind, str) else None
