"""What the caller of a vote is told: an answer as soon as it is likely, then what changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace

from orchestration.errors import OrchestraError
from orchestration.messages import ChatMessage
from orchestration.patterns.answer_check import Caller
from orchestration.patterns.answer_repair import CORRECTION, Repair, vetted
from orchestration.patterns.base import Answer, Part
from orchestration.patterns.clipping import clip
from orchestration.patterns.consensus import Party, Tally
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.single import final_sampling
from orchestration.patterns.stage import COORDINATOR, Stage
from orchestration.patterns.wording import AGREED_HEAD, KEEP_TO_MOST_AGREE


class Teller:
    """Of one run. The text is the spokesman's of the leading party as it is; with `synthesis`, and where some
    voices dissent, the coordinator writes it from that and from the dissent.

    A run that is taken up tells all again, and the stage leaves out what its caller has (`Outlet`).
    """

    def __init__(self, stage: Stage, *, synthesis: bool) -> None:
        self._stage = stage
        self._synthesis = synthesis
        self._said = ""
        self._told: int | None = None
        self._answer: Answer | None = None

    async def first(self, tally: Tally, answers: Mapping[int, Answer]) -> AsyncGenerator[Part, None]:
        """Tell what leads now, unless something was told before."""
        if self._said or tally.leader is None:
            return
        async with aclosing(self._tell(tally, tally.leader, answers)) as parts:
            async for part in parts:
                yield part

    def kept(self, tally: Tally) -> Tally:
        """The tally where what was told stands for its party, and leads whatever that is tied with: nothing
        is corrected without need."""
        tied = [party for party in tally.parties if party.weight == tally.parties[0].weight]
        told = next((party for party in tied if self._told in party.voices), None)
        if told is None or self._told is None:
            return tally
        others = (party for party in tally.parties if party is not told)
        return replace(tally, parties=(replace(told, spokesman=self._told), *others))

    async def last(self, tally: Tally, answers: Mapping[int, Answer]) -> AsyncGenerator[Part | Answer, None]:
        """Tell the outcome where it is not what was told; then the whole as the `Answer`."""
        leader = tally.leader
        assert leader is not None
        if self._told not in leader.voices:
            async with aclosing(self._tell(tally, leader, answers)) as parts:
                async for part in parts:
                    yield part
        yield replace(self._answer or answers[leader.spokesman], text=self._said)

    async def _tell(
        self, tally: Tally, leader: Party, answers: Mapping[int, Answer]
    ) -> AsyncGenerator[Part, None]:
        if self._synthesis and self._told is None and len(tally.parties) > 1:
            try:
                async with aclosing(self._write(tally, leader, answers)) as parts:
                    async for part in parts:
                        yield part
                return
            except OrchestraError as error:
                await self._stage.note(f"no synthesis: {error.message}")
        self._told = leader.spokesman
        said = answers[leader.spokesman]
        text, current = said.text.strip(), self._said.rpartition(CORRECTION)[2]
        rest = text[len(current) :] if text.startswith(current) else CORRECTION + text
        self._answer = said
        if rest:
            self._said += rest
            yield Part(text=rest, tokens=max(1, said.usage.completion_tokens))

    async def _write(
        self, tally: Tally, leader: Party, answers: Mapping[int, Answer]
    ) -> AsyncGenerator[Part, None]:
        """The coordinator's own text, as it comes."""
        run, limits = self._stage.run, self._stage.limits
        talk = await Conversation.on(self._stage)
        most = clip(answers[leader.spokesman].text, limits.passed_tokens)
        others = "\n\n".join(
            f"Another answer:\n{clip(answers[party.spokesman].text, limits.passed_tokens)}"
            for party in tally.parties[1 : 1 + limits.max_specialists]
        )
        request = f"{talk}\n\n{AGREED_HEAD}\n{most}\n\n{others}\n\n{KEEP_TO_MOST_AGREE}"
        messages = (*talk.system(), ChatMessage(role="user", content=request))
        said, sampling = [answers[party.spokesman] for party in tally.parties], final_sampling(run, limits)
        repair = Repair(
            asked=request,
            caller=Caller(run.messages, also=[answer.text for answer in said]),
            agent=COORDINATOR,
            messages=messages,
            name="synthesis again",
            sampling=sampling,
            guide=run.guide,
            others=[("this is what most say", answer) for answer in said[:1]],
        )
        parts = self._stage.stream(
            COORDINATOR, messages, name="synthesis", sampling=sampling, guide=run.guide
        )
        async with aclosing(vetted(self._stage, parts, repair)) as items:
            async for item in items:
                if isinstance(item, Answer):
                    self._answer, self._told = item, leader.spokesman
                else:
                    self._said += item.text
                    yield item
