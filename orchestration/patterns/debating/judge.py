"""The judge of a debate: says when it is over and why, and writes what came of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import StrEnum
from typing import Any

from orchestration.errors import InvalidRequest, OrchestraError
from orchestration.messages import ChatMessage
from orchestration.patterns.base import Answer, Part
from orchestration.patterns.clipping import clip
from orchestration.patterns.consensus import Kind, asked_kind
from orchestration.patterns.debating.debaters import Debater, Position
from orchestration.patterns.debating.floor import Floor
from orchestration.patterns.single import final_sampling
from orchestration.patterns.stage import Stage
from orchestration.patterns.voting.voices import instructed

SAID_TOKENS = 100
"""Of each answer in the report; the steps have them whole."""
ROUNDING = 1e-6


class End(StrEnum):
    """Why a debate is over."""

    AGREEMENT = "agreement"
    NO_CHANGE = "no change"
    LIMIT = "round limit"
    ALONE = "too few debaters"
    BUDGET = "budget"


class Judge:
    """Of one run. `agent` writes the synthesis; the debate is over where at least `agree_at` of the debaters,
    by weight, hold the same position, where a round changed no mind, and after `rounds`."""

    def __init__(self, floor: Floor, agent: str, agree_at: float, rounds: int) -> None:
        """Raises `InvalidRequest` for an agent that does not exist."""
        self.stage: Stage = floor.stage
        if agent not in self.stage.agents:
            raise InvalidRequest(
                f"no agent {agent!r} to judge; the agents are {', '.join(self.stage.agents)}",
                param="orchestra.settings.judge",
            )
        self.floor = floor
        self.ended: End | None = None
        self._agent = agent
        self._agree_at = agree_at
        self._rounds = rounds
        self._told: list[dict[str, Any]] = []

    async def after(self, number: int) -> End | None:
        """Hear a round; why the debate is over, or None while it goes on."""
        floor = self.floor
        self.ended = self._why_over(number)
        if self.ended is End.ALONE:
            left = "one debater alone is left" if floor.debaters else "no debater is left"
            await self.stage.note(f"{left}: this is the best position there was")
        positions = [self._said(debater) for debater in floor.debaters]
        self._told.append({"round": number, "agreement": round(floor.agreement, 3), "positions": positions})
        for position in positions:
            await self.stage.event("position", round=number, **position)
        parties = [list(party.voices) for party in floor.tally.parties]
        await self.stage.event(
            "judged",
            round=number,
            answer_kind=floor.tally.kind,
            agreement=round(floor.agreement, 3),
            changes=floor.changes,
            parties=parties,
            over=self.ended or "",
        )
        changed = f", {floor.changes} changed their mind" if number > 1 else ""
        over = f"; over: {self.ended}" if self.ended else ""
        await self.stage.progress(
            f"round {number}: {len(floor.debaters)} debaters, {len(parties)} positions{changed}{over}"
        )
        return self.ended

    async def write(self) -> AsyncGenerator[Part | Answer, None]:
        """The synthesis, as it comes. Where it could only repeat, the best position is said as it is: of one
        debater that is left, and of all that agree on a number, an option or another short answer. So it is
        where no synthesis is to be had."""
        floor = self.floor
        if self.ended is End.ALONE or self._agreed_word_for_word:
            async with aclosing(self.stage.say(self._best.answer)) as items:
                async for item in items:
                    yield item
            return
        answer: Answer | None = None
        begun = False
        try:
            async with aclosing(self._stream()) as items:
                async for item in items:
                    begun = True
                    if isinstance(item, Answer):
                        answer = item
                    else:
                        yield item
        except OrchestraError as error:
            if begun:
                raise
            await self.stage.note(f"no synthesis, but the position that most hold: {error.message}")
            async with aclosing(self.stage.say(self._best.answer)) as items:
                async for item in items:
                    yield item
            return
        assert answer is not None
        if not await floor.urn.alike(floor.tally.kind, answer.text, self._best.answer.text):
            await self.stage.note("the synthesis does not say what most of the debaters hold: see the report")
        yield answer

    def report(self) -> dict[str, Any]:
        """Positions and changes of mind, round by round."""
        floor = self.floor
        return {
            "answer_kind": floor.tally.kind,
            "answer": self._best.answer.text.strip(),
            "agreement": round(floor.agreement, 3),
            "ended": self.ended,
            "rounds": self._told,
            "changes": sum(position["changed"] for told in self._told for position in told["positions"]),
            "critiques": {"asked": floor.asked_forms, "usable": floor.usable_forms},
            "dropped": [
                {"debater": debater.number, "round": number, "why": why}
                for debater, number, why in floor.dropped
            ],
        }

    @property
    def _best(self) -> Position:
        """What most hold, in the words of their spokesman."""
        leader = self.floor.tally.leader
        assert leader is not None
        return self.floor.positions[leader.spokesman]

    @property
    def _agreed_word_for_word(self) -> bool:
        tally = self.floor.tally
        return self.ended is End.AGREEMENT and len(tally.parties) == 1 and tally.kind is not Kind.TEXT

    def _why_over(self, number: int) -> End | None:
        floor = self.floor
        if len(floor.debaters) < 2:
            return End.ALONE
        if floor.agreement >= self._agree_at - ROUNDING:
            return End.AGREEMENT
        if floor.spent:
            return End.BUDGET
        if number > 1 and not floor.changes:
            return End.NO_CHANGE
        return End.LIMIT if number >= self._rounds else None

    def _said(self, debater: Debater) -> dict[str, Any]:
        position = self.floor.positions[debater.number]
        said: dict[str, Any] = {
            "debater": debater.number,
            "role": debater.standpoint or debater.agent,
            "model": position.answer.model,
            "node": position.answer.node,
            "answer": clip(position.answer.text, SAID_TOKENS),
            "changed": position.changed,
            "why": position.why,
            "kept": position.kept,
        }
        if position.critique is not None:
            said["critique"] = position.critique.model_dump()
        return said

    async def _stream(self) -> AsyncGenerator[Part | Answer, None]:
        floor, run, limits = self.floor, self.stage.run, self.stage.limits
        held = "\n".join(f"- {text}" for text in floor.summary(3 * limits.passed_tokens))
        request = (
            f"{floor.talk}\n\nAnswers after a debate:\n{held}\n\n"
            "Answer the question clearly and directly. Keep to what most hold, and use of the rest only what "
            "is right."
        )
        messages = (*floor.talk.system(), ChatMessage(role="user", content=request))
        if run.guide is None:
            messages = instructed(messages, asked_kind(floor.urn.question), think=False)
        sampling = final_sampling(run, limits)
        async with aclosing(
            self.stage.stream(self._agent, messages, name="synthesis", sampling=sampling, guide=run.guide)
        ) as items:
            async for item in items:
                yield item
