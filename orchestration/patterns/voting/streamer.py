"""Streams the answer of a vote as soon as it is likely, and corrects it at most once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace

from orchestration.errors import OrchestraError
from orchestration.messages import ChatMessage, TextDelta
from orchestration.patterns.answer_repair import AnswerRepair, checked_stream, correction
from orchestration.patterns.base import StepOptions, StepResult
from orchestration.patterns.caller_text import CallerText
from orchestration.patterns.clipping import clip
from orchestration.patterns.consensus import AnswerGroup, AnswerKind, VoteCount
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.prompt_texts import AGREED_HEAD, FOLLOW_MAJORITY
from orchestration.patterns.run_context import COORDINATOR, RunContext


class VoteStreamer:
    """Streams one vote. The text is that of the leading group's representative. With `synthesis`, and where
    voters disagree in free texts, the most trusted model writes it from the leading and the other answers.

    A run that is resumed streams everything again; the resume filter drops what its caller has.
    """

    def __init__(self, context: RunContext, *, synthesis: bool) -> None:
        self._context = context
        self._synthesis = synthesis
        self._streamed = ""
        self._representative: int | None = None
        """The voter whose answer was streamed."""
        self._synthesised: StepResult | None = None
        """The synthesis, where one was written."""

    async def stream_leader(
        self, count: VoteCount, answers: Mapping[int, StepResult]
    ) -> AsyncGenerator[TextDelta, None]:
        """Stream the answer that leads now, unless something was streamed before."""
        if self._streamed or count.leader is None:
            return
        async with aclosing(self._stream(count, count.leader, answers)) as parts:
            async for part in parts:
                yield part

    def keep_streamed(self, count: VoteCount) -> VoteCount:
        """The count in which the streamed answer represents its group, and leads where that is tied: so
        nothing is corrected without need."""
        tied = [group for group in count.groups if group.weight == count.groups[0].weight]
        mine = next((group for group in tied if self._representative in group.voters), None)
        if mine is None or self._representative is None:
            return count
        others = (group for group in count.groups if group is not mine)
        return replace(count, groups=(replace(mine, representative=self._representative), *others))

    async def stream_outcome(
        self, count: VoteCount, answers: Mapping[int, StepResult]
    ) -> AsyncGenerator[TextDelta | StepResult, None]:
        """Stream the outcome where it differs from what was streamed; then yield the whole as the
        `StepResult`."""
        leader = count.leader
        assert leader is not None
        if self._representative not in leader.voters:
            async with aclosing(self._stream(count, leader, answers)) as parts:
                async for part in parts:
                    yield part
        answer = self._synthesised or answers[leader.representative]
        yield replace(answer, text=answer.text.strip())

    async def _stream(
        self, count: VoteCount, leader: AnswerGroup, answers: Mapping[int, StepResult]
    ) -> AsyncGenerator[TextDelta, None]:
        if self._synthesis and not self._streamed and count.kind is AnswerKind.TEXT and len(count.groups) > 1:
            try:
                async with aclosing(self._write(count, leader, answers)) as parts:
                    async for part in parts:
                        yield part
                return
            except OrchestraError as error:
                await self._context.warn(f"no synthesis: {error.message}")
        self._representative, self._synthesised = leader.representative, None
        answer = answers[leader.representative]
        text = answer.text.strip()
        if text.startswith(self._streamed):
            part = TextDelta(
                text=text[len(self._streamed) :], tokens=max(1, answer.finish.usage.completion_tokens)
            )
        else:
            part = correction(answer)
        if part.text:
            self._streamed = text
            yield part

    async def _write(
        self, count: VoteCount, leader: AnswerGroup, answers: Mapping[int, StepResult]
    ) -> AsyncGenerator[TextDelta, None]:
        """Stream the synthesis of the most trusted voter."""
        run, limits = self._context.run, self._context.limits
        conversation = await Conversation.on(self._context)
        texts = [
            f"{clip(answers[group.representative].text, limits.passed_tokens)}\n{self._held_by(group, count)}"
            for group in count.groups
        ]
        others = "\n\n".join(f"Another answer:\n{text}" for text in texts[1:])
        request = f"{conversation}\n\n{AGREED_HEAD}\n{texts[0]}\n\n{others}\n\n{FOLLOW_MAJORITY}"
        messages = (*conversation.system(), ChatMessage(role="user", content=request))
        answered, sampling = [answers[group.representative] for group in count.groups], run.sampling
        repair = AnswerRepair(
            question=request,
            caller=CallerText(run.messages, also=[answer.text for answer in answered]),
            agent=COORDINATOR,
            messages=messages,
            name="synthesis again",
            sampling=sampling,
            guide=run.guide,
            others=[("this is what most say", answer) for answer in answered[:1]],
        )
        parts = self._context.stream(
            COORDINATOR,
            messages,
            name="synthesis",
            options=StepOptions(
                sampling=sampling,
                guide=run.guide,
                model=self._context.trust.best([answer.finish.model for answer in answers.values()]),
            ),
        )
        async with aclosing(checked_stream(self._context, parts, repair)) as items:
            async for item in items:
                if isinstance(item, StepResult):
                    self._synthesised, self._representative = item, leader.representative
                else:
                    self._streamed += item.text
                    yield item

    def _held_by(self, group: AnswerGroup, count: VoteCount) -> str:
        """How many voters gave an answer, and their share of the weight, for the model that writes the
        synthesis."""
        votes = sum(len(each.voters) for each in count.groups)
        whole = sum(each.weight for each in count.groups)
        share = group.weight / whole if whole else 0.0
        return f"({len(group.voters)} of {votes} answers say so, with {share:.0%} of the weight)"
