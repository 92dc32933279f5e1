"""A vote: voices answer the same question, and their consensus is told as soon as it is likely."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from orchestration.errors import OrchestraError
from orchestration.patterns.base import Answer, Part
from orchestration.patterns.consensus import Kind, Tally, asked_kind
from orchestration.patterns.stage import COORDINATOR, Stage
from orchestration.patterns.voting.crowd import Crowd, Heard
from orchestration.patterns.voting.minutes import Minutes
from orchestration.patterns.voting.teller import Teller
from orchestration.patterns.voting.urn import Urn
from orchestration.patterns.voting.voices import Voice, instructed


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Of a vote. It ends early where the leader stays ahead with a probability of `confidence`; its answer is
    told from a probability of `likely` on, and at the latest when one voice alone is still out, so that the
    slowest is never waited for with nothing said."""

    kind: Kind = Kind.AUTO
    confidence: float = 0.95
    likely: float = 0.9
    early: bool = True
    alike: float = 0.8
    at_once: int = 16
    think: bool = False
    synthesis: bool = False


class Vote:
    """Of one run; `title` names its part of the report."""

    def __init__(self, stage: Stage, voices: Sequence[Voice], rules: Rules, title: str) -> None:
        """Raises `InvalidRequest` when nothing is asked."""
        self.stage = stage
        self.rules = rules
        self.urn = Urn(stage, rules.kind, rules.alike)
        self.minutes = Minutes(stage, title, voices, rules.confidence)
        self.teller = Teller(stage, synthesis=rules.synthesis)
        self.messages = stage.run.messages
        if stage.run.guide is None:
            asked = rules.kind if rules.kind is not Kind.AUTO else asked_kind(self.urn.question)
            self.messages = instructed(self.messages, asked, think=rules.think)
        self.crowd = Crowd(voices, self._speak, at_once=rules.at_once, affords=self._affords)
        self._first_error: OrchestraError | None = None

    async def perform(self) -> AsyncGenerator[Part | Answer, None]:
        """The answer, and a correction where it was told too soon. Raises the first error when no voice
        answers."""
        self.stage.spending.keeps = self.rules.synthesis
        tally = Tally(Kind.TEXT, ())
        async with self.crowd:
            while heard := await self.crowd.heard():
                tally = await self._count(heard)
                if self.rules.early and self._stands(tally) >= self.rules.confidence:
                    break
                if self._is_likely(tally):
                    async with aclosing(self.teller.first(tally, self.urn.answers)) as parts:
                        async for part in parts:
                            yield part
        if not self.urn.answers:
            assert self._first_error is not None
            raise self._first_error
        spoiled = tally.leader is None
        if spoiled:
            tally = await self.urn.of_spoiled()
        tally = self.teller.kept(tally)
        await self.minutes.close(tally, self.urn, self.crowd, spoiled=spoiled)
        async with aclosing(self.teller.last(tally, self.urn.answers)) as items:
            async for item in items:
                yield item

    async def _speak(self, voice: Voice) -> Answer:
        def heard(part: Part) -> None:
            self.minutes.written[voice.number] = self.minutes.written.get(voice.number, 0) + part.tokens

        return await self.stage.ask(
            COORDINATOR,
            self.messages,
            name=voice.name,
            sampling=voice.sampling,
            guide=self.stage.run.guide,
            model=voice.model,
            heard=heard,
        )

    def _affords(self, voices: int) -> bool:
        """Whether so many may write as much as they may within what is left of the tokens. One after another,
        more of them come to speak, since what one leaves is the next one's."""
        most = self.stage.run.sampling.max_tokens or self.stage.limits.final_tokens
        return self.stage.spending.affords(voices, self.messages, COORDINATOR, most)

    async def _count(self, heard: Sequence[Heard]) -> Tally:
        for voice, said in heard:
            if isinstance(said, Answer):
                self.urn.add(voice, said)
            else:
                self._first_error = self._first_error or said
                self.minutes.failed(voice, said)
        tally = await self.urn.tally()
        await self.minutes.counted(tally, self.urn, self.crowd.out)
        return tally

    def _stands(self, tally: Tally) -> float:
        return tally.stands([voice.weight for voice in self.crowd.out])

    def _is_likely(self, tally: Tally) -> bool:
        """A text of a fixed form cannot be corrected, so it waits for the end."""
        if self.stage.run.guide is not None or not self.crowd.out:
            return False
        return len(self.crowd.out) == 1 or self._stands(tally) >= self.rules.likely
