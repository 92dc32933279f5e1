"""The answer of one specialist to the caller of a run: looked up, written, checked, and streamed.

It is written where the agent's tools are: see `answer_of`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from orchestration.errors import InvalidRequest, NoResponders
from orchestration.messages import Finish, Run, Sampling, TextDelta
from orchestration.patterns.answer_repair import AnswerRepair, checked_stream
from orchestration.patterns.base import StepOptions, StepResult
from orchestration.patterns.caller_text import CallerText
from orchestration.patterns.conversation import last_question_index
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.specialist_step import (
    Grounding,
    GroundingCheck,
    check_grounding,
    cited,
    first_source,
    gather_sources,
    specialist_step,
)
from orchestration.patterns.step_repair import check_and_repair
from orchestration.patterns.step_request import StepDone, StepRequest
from orchestration.query_analysis.analysis import analyse

RESEARCH = "research"
STEP = "answer"
NOTHING_FOUND = (
    "No source was found for this question, so there is no answer from the documents. Add documents that "
    "have it (`orchestra knowledge add FILE`), ask in other words, or ask a model without documents "
    "(`orchestra/single`)."
)


async def answer_of(context: RunContext, agent: str) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The answer of `agent` to the question of the run, as it comes. The whole step is done by an agent with
    tools, where there is one; else it is done here, without tools."""
    last_question_index(context.run.messages)
    if context.facts.tools is None:
        request = StepRequest(
            kind="answer",
            run=context.run,
            name=STEP,
            agent=agent,
            messages=context.run.messages,
            sampling=context.run.sampling,
            guide=context.run.guide,
            first_source=first_source(context, STEP),
        )
        try:
            async with aclosing(context.delegate(request)) as items:
                async for item in items:
                    yield _result(item) if isinstance(item, StepDone) else item
            return
        except NoResponders:  # no agent of that name has tools
            pass
    async with aclosing(_answer(context, agent)) as parts:
        async for part in parts:
            yield part


async def perform_step(
    context: RunContext, request: StepRequest
) -> AsyncGenerator[TextDelta | StepDone, None]:
    """Do a step that was sent to an agent in this process, whose tools `context` has.

    Raises `InvalidRequest` for a tool that the agent does not have, and the step's error."""
    context.source_numbers[request.name] = request.first_source
    if request.kind == "tool":
        names = [tool.name for tool in await context.local_tools(request.agent)]
        if request.tool not in names:
            raise InvalidRequest(
                f"{request.agent} has no tool {request.tool!r}; its tools: {', '.join(names) or 'none'}",
                param="tool",
            )
        result = await context.use(request.agent, request.tool, request.arguments, name=request.name)
        yield StepDone(result=result)
    elif request.kind == "specialist":
        answer = await specialist_step(context, request)
        yield StepDone(text=answer.text, finish=answer.finish, seconds=answer.seconds)
    else:
        async with aclosing(_answer(context, request.agent)) as items:
            async for item in items:
                if isinstance(item, StepResult):
                    yield StepDone(text=item.text, finish=item.finish, seconds=item.seconds)
                else:
                    yield item


def _result(done: StepDone) -> StepResult:
    return StepResult(text=done.text, finish=done.finish, seconds=done.seconds)


def _answer(context: RunContext, agent: str) -> AsyncGenerator[TextDelta | StepResult, None]:
    return _researched(context) if agent == RESEARCH else _verified(context, agent)


async def _researched(context: RunContext) -> AsyncGenerator[TextDelta | StepResult, None]:
    run = context.run
    material = await gather_sources(context, RESEARCH, run.messages, name=STEP)
    if not material.sources:
        await context.warn("no source was found for this question")
        if run.guide is None and not _is_small_talk(run):
            async with aclosing(context.say(_nothing_found())) as items:
                async for item in items:
                    yield item
            return
    sampling = material.sampling(run.sampling) or Sampling()
    answer: StepResult | None = None
    stream = _checked(context, RESEARCH, material, sampling)
    async with aclosing(stream) as items:
        async for item in items:
            if isinstance(item, StepResult):
                answer = item
            else:
                yield item
    assert answer is not None
    if material.sources:
        check = await check_grounding(context, answer.text, material)
        if str(check):
            await context.warn(str(check))
        if run.guide is None:
            below = _below(answer.text, material, check)
            yield TextDelta(text=below, tokens=0)
            answer = replace(answer, text=answer.text + below)
    yield answer


async def _verified(context: RunContext, agent: str) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The text comes when it has been checked, all at once: streamed text cannot be taken back."""
    run = context.run
    material = await gather_sources(context, agent, run.messages, name=STEP)
    sampling = run.sampling
    answer: StepResult | None = None
    stream = _checked(context, agent, material, sampling, whole=True)
    async with aclosing(stream) as items:
        async for item in items:
            if isinstance(item, StepResult):
                answer = item
    assert answer is not None
    if run.guide is None:
        answer = await check_and_repair(
            context,
            agent,
            material.before(run.messages),
            answer,
            name=STEP,
            options=StepOptions(sampling=sampling),
        )
    async with aclosing(context.say(answer)) as items:
        async for item in items:
            yield item


def _checked(
    context: RunContext, agent: str, material: Grounding, sampling: Sampling, *, whole: bool = False
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The agent's answer from the material, checked and once repaired. `whole`: no text before its check."""
    run, messages = context.run, material.before(context.run.messages)
    repair = AnswerRepair(
        question=messages[-1].content,
        caller=CallerText(run.messages, also=[source.text for source in material.sources]),
        agent=agent,
        messages=messages,
        name="answer again",
        sampling=sampling,
        guide=run.guide,
        whole=whole,
    )
    options = StepOptions(sampling=sampling, guide=run.guide)
    return checked_stream(context, context.stream(agent, messages, name=STEP, options=options), repair)


def _is_small_talk(run: Run) -> bool:
    return analyse(run.messages[last_question_index(run.messages)].content).kind == "conversation"


def _nothing_found() -> StepResult:
    return StepResult(text=NOTHING_FOUND, finish=Finish(reason="stop"), seconds=0.0)


def _below(text: str, material: Grounding, check: GroundingCheck) -> str:
    """The sources that the answer cites or that support a claim of it, else all; and what has no support."""
    used = cited(text) | {material.sources[claim.source].n for claim in check.claims if claim.supported}
    listed = [source for source in material.sources if source.n in used] or material.sources
    lines = ["Sources:", *(f"[{source.n}] {source.label} ({source.document})" for source in listed)]
    if str(check):
        lines.append(f"({str(check)[0].upper()}{str(check)[1:]}.)")
    return "\n\n" + "\n".join(lines)
