"""Checks a specialist's answer before it is passed on: programs are tested, sums are recalculated.

A program that does not parse, or fails an example of the request, goes back once with what is wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestration.errors import OrchestraError
from orchestration.messages import ChatMessage
from orchestration.patterns.arithmetic_check import correct_all_sums, count_right_sums, ends_in_right_number
from orchestration.patterns.base import NO_OPTIONS, StepOptions, StepResult
from orchestration.patterns.clipping import clip
from orchestration.patterns.code_check import (
    ProgramCheck,
    examples_for,
    problem_of,
    program_check,
    program_in,
)
from orchestration.patterns.conversation import last_question_index
from orchestration.patterns.run_context import RunContext

CODE = "code"
REASONING = "reasoning"
PYTHON = "python"
MAX_REPORTED = 3
"""Maximum failures in the repair request, and below the answer."""


async def check_and_repair(
    context: RunContext,
    agent: str,
    messages: tuple[ChatMessage, ...],
    answer: StepResult,
    *,
    name: str,
    options: StepOptions = NO_OPTIONS,
) -> StepResult:
    """The answer as it is passed on: of the agents `code` and `reasoning`; another's is left alone. Examples
    are those of the step's question and of the caller's."""

    async def again(request: str) -> StepResult:
        turns = (
            ChatMessage(role="assistant", content=answer.text),
            ChatMessage(role="user", content=request),
        )
        return await context.ask(agent, (*messages, *turns), name=f"{name}: repair", options=options)

    if agent == REASONING:
        texts = " ; ".join(message.content for message in (*messages, *context.run.messages))
        return await _correct_sums(context, answer, name, texts, again)
    if agent != CODE:
        return answer
    conversations = (messages, context.run.messages)
    request = "\n\n".join(each[last_question_index(each)].content for each in conversations)
    first = await _tried(context, request, answer, f"{name}: {PYTHON}")
    if first is None or not first.wrong:
        return await _report_program(context, first, answer, name, repaired=False)
    try:
        new = await again(_repair(first))
    except OrchestraError as error:
        await context.progress(f"{name}: the program is not repaired: {error.message}")
        return await _report_program(context, first, answer, name, repaired=False)
    second = await _tried(context, request, new, f"{name}: {PYTHON} again")
    if second is None or second.merit <= first.merit:
        return await _report_program(context, first, answer, name, repaired=False)
    return await _report_program(context, second, new, name, repaired=True)


@dataclass(frozen=True, slots=True)
class _Program:
    """The check of the program in an answer."""

    problem: str
    trial: ProgramCheck | None = None

    @property
    def wrong(self) -> list[str]:
        return [self.problem] if self.problem else self.trial.failures if self.trial else []

    @property
    def merit(self) -> tuple[bool, int]:
        return not self.problem, self.trial.passed if self.trial else 0


async def _tried(context: RunContext, request: str, answer: StepResult, step: str) -> _Program | None:
    """Check the Python program in the answer; None without one."""
    code = program_in(answer.text)
    if code is None:
        return None
    problem = problem_of(code)
    examples = () if problem else examples_for(request, code)
    if not examples:
        return _Program(problem)
    arguments = {
        "code": code,
        "examples": [{"call": each.call, "expected": each.expected} for each in examples],
    }
    try:
        if PYTHON not in {tool.name for tool in await context.local_tools(CODE)}:
            return _Program(problem)
        result = await context.use(CODE, PYTHON, arguments, name=step)
    except OrchestraError as error:
        await context.progress(f"{step}: the program is not run: {error.message}")
        return _Program(problem)
    if result.error:
        await context.progress(f"{step}: the program is not run: {result.error}")
        return _Program(problem)
    return _Program(problem, program_check(examples, result.data))


def _repair(program: _Program) -> str:
    wrong = "\n".join(f"- {clip(each, 120)}" for each in program.wrong[:MAX_REPORTED])
    return f"Your program is wrong:\n{wrong}\n\nWrite all of it again, right, in one ```python block."


async def _report_program(
    context: RunContext, program: _Program | None, answer: StepResult, name: str, *, repaired: bool
) -> StepResult:
    """Report the check of the program, and add a note to the answer if the program is wrong."""
    if program is None:
        return answer
    trial = program.trial
    entry: dict[str, Any] = {
        "step": name,
        "model": answer.finish.model,
        "parses": not program.problem,
        "problem": program.problem,
        "examples": len(trial.examples) if trial else 0,
        "passed": trial.passed if trial else 0,
        "failures": trial.failures if trial else [],
        "repaired": repaired,
    }
    context.report.extend("code", [entry])
    await context.event("code", **entry)
    if not program.wrong:
        return answer
    what = (
        "does not parse" if program.problem else f"fails {len(program.wrong)} of {entry['examples']} examples"
    )
    below = f"(This program {what}: {'; '.join(program.wrong[:MAX_REPORTED])})"
    return replace(answer, text=f"{answer.text}\n\n{below}")


async def _correct_sums(
    context: RunContext,
    answer: StepResult,
    name: str,
    conversation: str,
    again: Callable[[str], Awaitable[StepResult]],
) -> StepResult:
    """The answer with its sums put right, and what follows from them: where that cannot be, it is written
    again, once; where that fails, a note below says that it is wrong."""
    text, corrections, holds = correct_all_sums(answer.text, conversation)
    right_ones = count_right_sums(answer.text)
    if right_ones or corrections:
        checked = {"step": name, "model": answer.finish.model, "right": right_ones, "wrong": len(corrections)}
        context.report.extend("sums", [checked])
    if not corrections:
        return answer
    entries: Sequence[dict[str, str]] = [
        {"step": name, "sum": each.sum, "wrong": each.wrong, "right": each.right} for each in corrections
    ]
    context.report.extend("arithmetic", entries)
    await context.event("arithmetic", step=name, corrections=entries)
    right = "; ".join(map(str, corrections))
    if holds:
        return replace(answer, text=f"{text}\n\n(Arithmetic corrected: {right}.)")
    try:
        new = await again(f"{right}. Write the answer again, with what follows from that.")
        if ends_in_right_number(new.text, corrections, conversation):
            return replace(new, text=f"{new.text}\n\n(Arithmetic corrected: {right}.)")
    except OrchestraError as error:
        await context.progress(f"{name}: the answer is not written again: {error.message}")
    below = f"(Arithmetic corrected: {right}. What rests on the wrong sum does not hold.)"
    return replace(answer, text=f"{text}\n\n{below}")
