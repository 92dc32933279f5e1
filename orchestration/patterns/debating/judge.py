"""The judge of a debate: says when it is over and why, and writes what came of it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from enum import StrEnum
from typing import Any

from orchestration.errors import InvalidRequest, OrchestraError
from orchestration.messages import ChatMessage
from orchestration.patterns.answer_check import Caller, is_echo, problem_of, words_of
from orchestration.patterns.base import Answer, Part
from orchestration.patterns.clipping import clip
from orchestration.patterns.consensus import Kind, asked_kind
from orchestration.patterns.debating.debaters import Debater, Position
from orchestration.patterns.debating.floor import Floor
from orchestration.patterns.single import final_sampling
from orchestration.patterns.stage import Stage
from orchestration.patterns.voting.voters import instructed
from orchestration.patterns.wording import DEBATED_HEAD, KEEP_TO_MOST_HOLD

SAID_TOKENS = 100
"""Of each answer in the report; the steps have them whole."""
ROUNDING = 1e-6
HALF = 0.5 + ROUNDING
OF_DEBATES = frozenset(("debate", "debates", "debated", "debater", "debaters"))
"""Words of our prompt that an answer has only where it is about the debate."""
OF_ANSWERS = re.compile(
    r"\b(?:(?:all|both|other|these|those|most|previous|provided|three|two)(?: of)?(?: the| these| those)? "
    r"answers|"
    r"the (?:other|first|second|third|previous|last) answers?\b|"
    r"answers (?:all |both )?(?:agree|differ|above|given|provided|so far|hold|say)|"
    r"most (?:of them )?(?:agree|hold))\b",
    re.IGNORECASE,
)
"""Says something of the answers that the debaters gave, which the caller does not see."""


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
        """The synthesis, where it says what the debaters hold. Where it does not, where it could only repeat,
        and where none is to be had, the best position is said as it is: that of one debater who is left, or
        what all agree on that answer with a number, an option or another short text."""
        if self.ended is not End.ALONE and not self._agreed_word_for_word:
            parts: list[Part] = []
            try:
                answer = await self._synthesis(parts.append)
                wrong = await self._wrong(answer.text)
            except OrchestraError as error:
                wrong = f"no synthesis, but the position that most hold: {error.message}"
            if not wrong:
                for part in parts:
                    yield part
                yield answer
                return
            await self.stage.note(wrong)
        async with aclosing(self.stage.say(self._best.answer)) as items:
            async for item in items:
                yield item

    async def _wrong(self, text: str) -> str:
        """Why a synthesis is no outcome of the debate, for a note; '' where it is one."""
        floor = self.floor
        held = [position.answer.text for position in floor.positions.values()]
        caller = Caller(self.stage.run.messages, also=held)
        problem = problem_of(text, caller)
        if is_echo(text, self._request()):
            return ""
        if problem:
            return f"the synthesis was left out, for the position that most hold: it {problem}"
        of_answers = OF_ANSWERS.search(text) is not None and OF_ANSWERS.search(caller.text) is None
        if of_answers or any(not caller.said([w]) for w in words_of([text]) if w in OF_DEBATES):
            return "the synthesis was left out, for the position that most hold: it is about the debate"
        kind, best = floor.tally.kind, self._best.answer.text
        if floor.agreement > HALF:
            says = await floor.urn.alike(kind, text, best)
        else:
            says = kind is Kind.TEXT or any([await floor.urn.alike(kind, text, each) for each in held])
        return "" if says else "the synthesis does not say what most of the debaters hold: see the report"

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

    def _request(self) -> str:
        floor = self.floor
        held = "\n".join(f"- {text}" for text in floor.summary(3 * self.stage.limits.passed_tokens))
        return f"{floor.talk}\n\n{DEBATED_HEAD}\n{held}\n\n{KEEP_TO_MOST_HOLD}"

    async def _synthesis(self, heard: Callable[[Part], None]) -> Answer:
        """Raises what a step raises."""
        floor, run, limits = self.floor, self.stage.run, self.stage.limits
        messages = (*floor.talk.system(), ChatMessage(role="user", content=self._request()))
        if run.guide is None:
            messages = instructed(messages, asked_kind(floor.urn.question), think=False)
        self.stage.spending.keeps = False
        return await self.stage.ask(
            self._agent,
            messages,
            name="synthesis",
            sampling=final_sampling(run, limits),
            guide=run.guide,
            heard=heard,
        )
