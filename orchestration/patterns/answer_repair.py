"""Streams an answer to the caller that passes the check, and replaces one that does not."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from orchestration.errors import OrchestraError
from orchestration.messages import ChatMessage, GuidedDecoding, Sampling, TextDelta
from orchestration.patterns.answer_check import AnswerCheck, is_echo, problem_of
from orchestration.patterns.base import StepOptions, StepResult
from orchestration.patterns.caller_text import CallerText
from orchestration.patterns.run_context import COORDINATOR, RunContext

CORRECTION = "\n\nCorrection: "
"""Separates streamed text from the text that replaces it."""
PENALTY = 1.15
"""Repetition penalty for a small model that writes an answer again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRepair:
    """How an answer that fails the check is replaced: `agent` answers `messages` once more; if that fails
    too, the first of `others` that passes is the answer, else that of the coordinator alone."""

    caller: CallerText
    """The caller's own text, which an answer may repeat."""
    agent: str
    messages: tuple[ChatMessage, ...]
    name: str
    """The name of the step that answers once more."""
    sampling: Sampling
    guide: GuidedDecoding | None = None
    model: str | None = None
    others: Sequence[tuple[str, StepResult]] = ()
    """Other answers, each with the warning for the caller that is due when it is used."""
    inside: Sequence[str] = ()
    """The team's own notes, which the answer must not consist of."""
    whole: bool = False
    """Whether nothing is streamed before the answer is complete."""
    question: str = ""
    """The request that the answer replies to; an answer may repeat it."""

    def check(self) -> AnswerCheck:
        return AnswerCheck(self.caller, self.inside)

    async def repaired_answer(self, context: RunContext, problem: str) -> StepResult | None:
        """Another answer. Where no other passes the check either, it is that of the coordinator alone; None
        where that fails too."""
        await context.warn(f"an answer was left out: it {problem}")
        sampling = self.sampling
        if context.is_small():
            sampling = sampling.model_copy(update={"temperature": 0.0, "repetition_penalty": PENALTY})
        try:
            answer = await context.ask(
                self.agent,
                self.messages,
                name=self.name,
                options=StepOptions(sampling=sampling, guide=self.guide, model=self.model),
            )
            if not problem_of(answer.text, self.caller, self.inside):
                return answer
        except OrchestraError as error:
            await context.progress(f"{self.name}: the answer is not written again: {error.message}")
        for what, other in self.others:
            if not problem_of(other.text, self.caller, self.inside):
                await context.warn(what)
                return other
        try:
            answer = await context.ask(
                COORDINATOR,
                context.run.messages,
                name="alone",
                options=StepOptions(sampling=sampling, guide=self.guide),
            )
        except OrchestraError as error:
            await context.warn(f"there is no better answer: {error.message}")
            return None
        await context.warn("the coordinator answered alone")
        return answer


def correction(answer: StepResult) -> TextDelta:
    """The text that replaces another answer, which was streamed before."""
    text = CORRECTION + answer.text.strip()
    return TextDelta(text=text, tokens=answer.finish.usage.completion_tokens, replaces=len(CORRECTION))


async def checked_stream(
    context: RunContext, parts: AsyncGenerator[TextDelta | StepResult, None], repair: AnswerRepair
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The parts as they come, and the answer last. What may become a problem is held back until it is none; a
    text of a fixed form, which cannot be corrected, to its end. A correction is streamed at most once; the
    answer is the text that counts. Raises what `parts` raises."""
    check, held = repair.check(), deque[TextDelta]()
    streamed, length, read, echo, answer = list[str](), 0, 0, False, None
    whole = repair.whole or repair.guide is not None
    async with aclosing(parts):
        async for item in parts:
            if isinstance(item, StepResult):
                answer = item
                continue
            check.read(item.text)
            held.append(item)
            sure = 0 if whole else check.sure
            read += len(item.text)
            if check.problem and not whole and not echo and read >= len(repair.question):
                echo = is_echo("".join([*streamed, *(part.text for part in held)]), repair.question)
            if echo:
                sure = read
            while held and length + len(held[0].text) <= sure:
                length += len(held[0].text)
                streamed.append(held[0].text)
                yield held.popleft()
    assert answer is not None
    problem = "" if is_echo(answer.text, repair.question) else check.end()
    better = await repair.repaired_answer(context, problem) if problem else None
    if better is not None:
        yield (
            correction(better)
            if streamed
            else TextDelta(text=better.text, tokens=better.finish.usage.completion_tokens)
        )
        yield better
        return
    for part in held:
        yield part
    yield answer
