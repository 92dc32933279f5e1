"""What the caller of a vote gets: an answer as soon as it is likely, and one correction at most."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace

from orchestration.errors import OrchestraError
from orchestration.messages import ChatMessage
from orchestration.patterns.answer_check import CallerText
from orchestration.patterns.answer_repair import AnswerRepair, checked_stream, correction
from orchestration.patterns.base import Part, StepResult
from orchestration.patterns.clipping import clip
from orchestration.patterns.consensus import AnswerGroup, AnswerKind, VoteCount
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.prompt_texts import AGREED_HEAD, KEEP_TO_MOST_AGREE
from orchestration.patterns.run_context import COORDINATOR, RunContext
from orchestration.patterns.single import final_sampling


class VoteStreamer:
    """Of one run. The text is the spokesman's of the leading party as it is; with `synthesis`, and where some
    voters dissent in a free text, the most trusted of them writes it from that and from the dissent.

    A run that is taken up says all again, and the resume filter leaves out what its caller has.
    """

    def __init__(self, context: RunContext, *, synthesis: bool) -> None:
        self._context = context
        self._synthesis = synthesis
        self._streamed = ""
        self._spokesman: int | None = None
        """Whose answer was streamed."""
        self._written: StepResult | None = None
        """The synthesis."""

    async def first(self, tally: VoteCount, answers: Mapping[int, StepResult]) -> AsyncGenerator[Part, None]:
        """Stream what leads now, unless something was streamed before."""
        if self._streamed or tally.leader is None:
            return
        async with aclosing(self._stream(tally, tally.leader, answers)) as parts:
            async for part in parts:
                yield part

    def settled(self, tally: VoteCount) -> VoteCount:
        """The tally where what was streamed stands for its party, and leads whatever that is tied with:
        nothing is corrected without need."""
        tied = [party for party in tally.parties if party.weight == tally.parties[0].weight]
        mine = next((party for party in tied if self._spokesman in party.voices), None)
        if mine is None or self._spokesman is None:
            return tally
        others = (party for party in tally.parties if party is not mine)
        return replace(tally, parties=(replace(mine, spokesman=self._spokesman), *others))

    async def last(
        self, tally: VoteCount, answers: Mapping[int, StepResult]
    ) -> AsyncGenerator[Part | StepResult, None]:
        """Stream the outcome where it is not what was streamed; then the whole as the `StepResult`."""
        leader = tally.leader
        assert leader is not None
        if self._spokesman not in leader.voices:
            async with aclosing(self._stream(tally, leader, answers)) as parts:
                async for part in parts:
                    yield part
        answer = self._written or answers[leader.spokesman]
        yield replace(answer, text=answer.text.strip())

    async def _stream(
        self, tally: VoteCount, leader: AnswerGroup, answers: Mapping[int, StepResult]
    ) -> AsyncGenerator[Part, None]:
        if (
            self._synthesis
            and not self._streamed
            and tally.kind is AnswerKind.TEXT
            and len(tally.parties) > 1
        ):
            try:
                async with aclosing(self._write(tally, leader, answers)) as parts:
                    async for part in parts:
                        yield part
                return
            except OrchestraError as error:
                await self._context.warn(f"no synthesis: {error.message}")
        self._spokesman, self._written = leader.spokesman, None
        answer = answers[leader.spokesman]
        text = answer.text.strip()
        if text.startswith(self._streamed):
            part = Part(text=text[len(self._streamed) :], tokens=max(1, answer.usage.completion_tokens))
        else:
            part = correction(answer)
        if part.text:
            self._streamed = text
            yield part

    async def _write(
        self, tally: VoteCount, leader: AnswerGroup, answers: Mapping[int, StepResult]
    ) -> AsyncGenerator[Part, None]:
        """The text that the most trusted voter writes, as it comes."""
        run, limits = self._context.run, self._context.limits
        talk = await Conversation.on(self._context)
        texts = [
            f"{clip(answers[party.spokesman].text, limits.passed_tokens)}\n{self._held_by(party, tally)}"
            for party in tally.parties
        ]
        others = "\n\n".join(f"Another answer:\n{text}" for text in texts[1:])
        request = f"{talk}\n\n{AGREED_HEAD}\n{texts[0]}\n\n{others}\n\n{KEEP_TO_MOST_AGREE}"
        messages = (*talk.system(), ChatMessage(role="user", content=request))
        said, sampling = [answers[party.spokesman] for party in tally.parties], final_sampling(run, limits)
        repair = AnswerRepair(
            asked=request,
            caller=CallerText(run.messages, also=[answer.text for answer in said]),
            agent=COORDINATOR,
            messages=messages,
            name="synthesis again",
            sampling=sampling,
            guide=run.guide,
            others=[("this is what most say", answer) for answer in said[:1]],
        )
        parts = self._context.stream(
            COORDINATOR,
            messages,
            name="synthesis",
            sampling=sampling,
            guide=run.guide,
            model=self._context.trust.best([answer.model for answer in answers.values()]),
        )
        async with aclosing(checked_stream(self._context, parts, repair)) as items:
            async for item in items:
                if isinstance(item, StepResult):
                    self._written, self._spokesman = item, leader.spokesman
                else:
                    self._streamed += item.text
                    yield item

    def _held_by(self, party: AnswerGroup, tally: VoteCount) -> str:
        """How many say so, and what their votes weigh, for who writes the synthesis."""
        votes = sum(len(each.voices) for each in tally.parties)
        whole = sum(each.weight for each in tally.parties)
        share = party.weight / whole if whole else 0.0
        return f"({len(party.voices)} of {votes} answers say so, with {share:.0%} of the weight)"
