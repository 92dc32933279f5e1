"""A specialist's step: what it looks up before it answers, and what is checked afterwards.

Patterns call `run_specialist_step` where they would call `context.ask` for a specialist. The step is done
where the agent's tools are. An agent without tools, or whose tools fail, answers as it would with `ask`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from orchestration.errors import InvalidRequest, NoResponders, OrchestraError
from orchestration.messages import ChatMessage, Sampling
from orchestration.patterns.base import NO_OPTIONS, StepOptions, StepResult
from orchestration.patterns.clipping import clip, estimate_tokens, truncate
from orchestration.patterns.conversation import last_question_index
from orchestration.patterns.grounding_check import Claim, claims_of, evidence, judged
from orchestration.patterns.grounding_context import PLAIN, Source, before, fitting
from orchestration.patterns.limits import AROUND_TOKENS
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.step_repair import check_and_repair
from orchestration.patterns.step_request import StepDone, StepRequest
from orchestration.patterns.tool_choice import call_tools

KNOWLEDGE = "knowledge"
PASSAGES = 5
"""Passages that are asked of the knowledge base."""
CLAIM_TOKENS = 40
"""Maximum length of an unsupported claim below an answer."""
QUERY_TOKENS = 512
"""Maximum length of a query; an embedding model reads no more."""
MIN_MATERIAL_TOKENS = 240
"""Tokens that sources may have however long the conversation is."""
NUMBERS = 10
"""Source numbers reserved for each step, so that those of parallel steps differ, and are the same when a run
is performed again."""
_CITED = re.compile(r"\[(\d+(?:\s*,\s*\d+)*)\]")


@dataclass(frozen=True, slots=True)
class Grounding:
    """What one step was given. `step` is its name, and `small` says that its model is known to be so."""

    step: str
    sources: tuple[Source, ...] = ()
    small: bool = True

    def before(self, messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
        return before(messages, self.sources)

    def sampling(self, given: Sampling | None) -> Sampling | None:
        """`given`, over the parameters that suit an answer from sources."""
        return (given or Sampling()).over(PLAIN) if self.sources and self.small else given


@dataclass(frozen=True, slots=True)
class GroundingCheck:
    """What an answer's claims rest on."""

    claims: tuple[Claim, ...]
    wrong: tuple[int, ...]
    """Numbers that it cites, and that no source has."""

    @property
    def unsupported(self) -> list[Claim]:
        return [claim for claim in self.claims if not claim.supported]

    def __str__(self) -> str:
        """What a reader should know; '' where all is well."""
        problems = []
        if self.unsupported:
            claims = "; ".join(f"“{truncate(claim.text, CLAIM_TOKENS)}”" for claim in self.unsupported)
            problems.append(f"not supported by the sources: {claims}")
        if self.wrong:
            problems.append(f"cites {', '.join(f'[{n}]' for n in self.wrong)}, which no source has")
        return "; ".join(problems)


async def run_specialist_step(
    context: RunContext,
    agent: str,
    messages: tuple[ChatMessage, ...],
    *,
    name: str,
    options: StepOptions = NO_OPTIONS,
    query: str = "",
) -> StepResult:
    """The whole answer of a specialist's step, as `context.ask` gives it, and with its errors. `query` is
    what is looked up; without one it is the last question.

    Programs of the agent `code` are tried and sums of `reasoning` checked: see `mending`. Where there were
    sources, a sentence that one of them supports cites it, and what none supports is named below the text.
    Nothing is done to a text of which a guide says what it is like.
    """
    request = StepRequest(
        kind="specialist",
        run=context.run,
        name=name,
        agent=agent,
        messages=messages,
        sampling=options.sampling,
        guide=options.guide,
        model=options.model,
        query=query,
        first_source=first_source(context, name),
    )
    if context.facts.tools is None:
        try:
            async with aclosing(context.delegate(request)) as items:
                async for item in items:
                    if isinstance(item, StepDone):
                        return StepResult(text=item.text, finish=item.finish, seconds=item.seconds)
        except (
            NoResponders
        ):  # no agent of that name has tools: the step is a model call and checks of its text
            pass
    return await specialist_step(context, request)


async def specialist_step(context: RunContext, request: StepRequest) -> StepResult:
    """The same in this process, with the tools that the agent has here."""
    agent, name = request.agent, request.name
    material = await gather_sources(context, agent, request.messages, name=name, query=request.query)
    answer = await context.ask(
        agent,
        material.before(request.messages),
        name=name,
        options=StepOptions(
            sampling=material.sampling(request.sampling), guide=request.guide, model=request.model
        ),
    )
    if request.guide is not None:
        return answer
    answer = await check_and_repair(
        context,
        agent,
        request.messages,
        answer,
        name=name,
        options=StepOptions(sampling=request.sampling, model=request.model),
    )
    if not material.sources:
        return answer
    check = await check_grounding(context, answer.text, material)
    text = with_citations(answer.text, material, check)
    return replace(answer, text=f"{text}\n\n({check})" if str(check) else text)


def first_source(context: RunContext, name: str) -> int:
    """The number of the first source of a step. A pattern whose steps may begin in any order asks for all of
    them before it begins, so that they have the same numbers when the run is performed again."""
    numbers = context.source_numbers
    return numbers.setdefault(name, NUMBERS * len(numbers) + 1)


async def gather_sources(
    context: RunContext, agent: str, messages: Sequence[ChatMessage], *, name: str, query: str = ""
) -> Grounding:
    """What the agent's tools bring for a step called `name`. Sources are in the report too."""
    first = first_source(context, name)
    tools = {tool.name: tool for tool in await context.local_tools(agent)}
    wanted = query or messages[last_question_index(messages)].content
    sources: list[Source] = []
    chosen = [tool for tool in tools.values() if "." in tool.name]  # those of servers: <server>.<tool>
    if chosen:
        sources += await call_tools(context, agent, wanted, chosen, name=name, first=first)
    if KNOWLEDGE in tools:
        sources += await _looked_up(context, agent, wanted, name, first + len(sources))
    fitted = fitting(sources, _room(context, messages))
    if sources and [each.text for each in fitted] != [each.text.strip() for each in sources]:
        needed = sum(estimate_tokens(each.text) for each in sources)
        await context.warn_cut(f"the sources of {name}", needed, _room(context, messages))
    sources = fitted
    if sources:
        context.report.extend("sources", [_reported(source, name) for source in sources])
    return Grounding(name, tuple(sources), context.is_small())


def _room(context: RunContext, messages: Sequence[ChatMessage]) -> int:
    """Tokens for sources beside the conversation and the answer."""
    limits = context.limits
    conversation = sum(estimate_tokens(message.content) for message in messages)
    left = context.context_tokens - AROUND_TOKENS - limits.final_tokens - int(conversation)
    return min(limits.source_tokens, max(MIN_MATERIAL_TOKENS, left))


async def check_grounding(context: RunContext, text: str, material: Grounding) -> GroundingCheck:
    """Hold an answer against its sources. What is wrong with it is in the report and an event."""
    claims = claims_of(text)
    held = evidence(source.text for source in material.sources)
    texts = [*claims, *(text for _, text in held)]
    try:
        vectors: Mapping[str, Sequence[float]] = dict(zip(texts, await context.embed(texts), strict=True))
    except OrchestraError as error:
        await context.progress(f"{material.step}: claims are compared by their words alone: {error.message}")
        vectors = {}
    given = {source.n for source in material.sources}
    wrong = tuple(sorted(n for n in cited(text) if n not in given))
    check = GroundingCheck(tuple(judged(claims, held, vectors)), wrong)
    if check.unsupported:
        context.report.extend(
            "unsupported",
            [
                {"step": material.step, "claim": claim.text, "score": claim.score}
                for claim in check.unsupported
            ],
        )
    await context.event(
        "grounding", step=material.step, claims=len(claims), unsupported=len(check.unsupported), wrong=wrong
    )
    return check


def cited(text: str) -> set[int]:
    """The numbers of the sources that a text names."""
    return {int(number) for match in _CITED.finditer(text) for number in match.group(1).split(",")}


def with_citations(text: str, material: Grounding, check: GroundingCheck) -> str:
    """The text with a citation after each sentence that a source supports, where it has none. Small models
    cite seldom."""
    for claim in check.claims:
        end = text.find(claim.text) + len(claim.text)
        if claim.supported and end >= len(claim.text) and not _CITED.match(text[end:].lstrip()):
            text = f"{text[:end]} [{material.sources[claim.source].n}]{text[end:]}"
    return text


async def best_match(context: RunContext, agent: str, query: str) -> float:
    """How well the passage of the agent's documents that fits `query` best does, from -1 to 1; 0 where it has
    no documents."""
    found = await _looked_up(context, agent, query, "look", 1)
    return max((source.score for source in found), default=0.0)


async def _looked_up(context: RunContext, agent: str, query: str, name: str, first: int) -> list[Source]:
    """Passages of the knowledge base for `query`."""
    arguments = {"query": clip(query, QUERY_TOKENS), "max_passages": PASSAGES}
    try:
        result = await context.use(agent, KNOWLEDGE, arguments, name=f"{name}: {KNOWLEDGE}")
    except InvalidRequest:  # the agent has no documents
        return []
    except OrchestraError as error:
        await context.progress(f"{name}: goes on without the knowledge base: {error.message}")
        return []
    passages = result.data if isinstance(result.data, list) else []
    return [
        Source(
            n=n,
            document=str(each["document"]),
            label=" › ".join(part for part in (each["title"], each["heading"]) if part),
            text=str(each["passage"]),
            score=float(each["similarity"]),
        )
        for n, each in enumerate(passages, first)
    ]


def _reported(source: Source, step: str) -> dict[str, Any]:
    return {
        "n": source.n,
        "document": source.document,
        "label": source.label,
        "passage": source.text,
        "score": source.score,
        "step": step,
    }
