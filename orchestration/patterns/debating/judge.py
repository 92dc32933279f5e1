"""The judge of a debate: decides when it is over, reports it, and writes its answer."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from enum import StrEnum
from typing import Any

from orchestration.errors import InvalidRequest, OrchestraError
from orchestration.messages import ChatMessage, TextDelta
from orchestration.patterns.answer_check import is_echo, problem_of
from orchestration.patterns.base import StepOptions, StepResult
from orchestration.patterns.caller_text import CallerText, words_of
from orchestration.patterns.clipping import clip, truncate
from orchestration.patterns.consensus import AnswerKind, asked_kind
from orchestration.patterns.debating.debaters import Debater
from orchestration.patterns.debating.rounds import DebateRounds
from orchestration.patterns.prompt_texts import DEBATED_HEAD, FOLLOW_DEBATERS
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.voting.voters import with_instructions

REPORTED_TOKENS = 100
"""Tokens of each answer in the report; the run's steps hold it whole."""
QUOTED_TOKENS = 20
"""Tokens of each answer that a note quotes."""
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
"""Mentions the answers of the debaters, which the caller does not see."""


class EndReason(StrEnum):
    """Why a debate is over."""

    AGREEMENT = "agreement"
    NO_CHANGE = "no change"
    LIMIT = "round limit"
    ALONE = "too few debaters"
    BUDGET = "budget"


class Judge:
    """The judge of one debate. `agent` writes the synthesis, on the most trusted of `models`, or of all live
    models where that is empty. The debate is over when at least `agree_at` of the debaters, by weight, hold
    the same position, when a round changed no mind, and after `max_rounds`."""

    def __init__(
        self, rounds: DebateRounds, agent: str, agree_at: float, max_rounds: int, models: Sequence[str] = ()
    ) -> None:
        """Raises `InvalidRequest` for an unknown agent."""
        self.context: RunContext = rounds.context
        if agent not in self.context.agents:
            raise InvalidRequest(
                f"no agent {agent!r} to judge; the agents are {', '.join(self.context.agents)}",
                param="orchestra.settings.judge",
            )
        self.rounds = rounds
        self.ended: EndReason | None = None
        self._agent = agent
        self._models = models
        self._agree_at = agree_at
        self._max_rounds = max_rounds
        self._round_reports: list[dict[str, Any]] = []

    async def judge_round(self, number: int) -> EndReason | None:
        """Report a round; returns why the debate is over, None while it goes on."""
        rounds = self.rounds
        self.ended = self._why_over(number)
        if self.ended is EndReason.ALONE:
            left = "one debater alone is left" if rounds.debaters else "no debater is left"
            await self.context.warn(f"{left}: this is the best position there was")
        positions = [self._position_report(debater) for debater in rounds.debaters]
        self._round_reports.append(
            {"round": number, "agreement": round(rounds.agreement, 3), "positions": positions}
        )
        for position in positions:
            await self.context.event("position", round=number, **position)
        groups = [list(group.voters) for group in rounds.count.groups]
        await self.context.event(
            "debate_round",
            round=number,
            answer_kind=rounds.count.kind,
            agreement=round(rounds.agreement, 3),
            changes=rounds.changes,
            groups=groups,
            over=self.ended or "",
        )
        if rounds.count.kind is not AnswerKind.TEXT:  # no synthesis will follow
            self.context.budget.has_reserve = False
        changed = f", {rounds.changes} changed their mind" if number > 1 else ""
        over = f"; over: {self.ended}" if self.ended else ""
        await self.context.progress(
            f"round {number}: {len(rounds.debaters)} debaters, {len(groups)} positions{changed}{over}"
        )
        return self.ended

    async def write_answer(self) -> AsyncGenerator[TextDelta | StepResult, None]:
        """Stream the answer. For free texts it is a synthesis, where that states what the debaters hold. The
        best position itself is the answer where the synthesis fails or states something else, where one
        debater is left, where the first round's leader stays against a new majority, and for numbers,
        options, programs and other fixed forms, which a synthesis could only spoil."""
        await self._note_flip()
        if self._is_synthesised:
            parts: list[TextDelta] = []
            try:
                answer = await self._synthesis(parts.append)
                wrong = await self._problem_of(answer.text)
            except OrchestraError as error:
                wrong = f"no synthesis, but the position that most hold: {error.message}"
            if not wrong:
                for part in parts:
                    yield part
                yield answer
                return
            await self.context.warn(wrong)
        async with aclosing(self.context.say(self.rounds.outcome)) as items:
            async for item in items:
                yield item

    async def _problem_of(self, text: str) -> str:
        """Why a synthesis is not the debate's outcome, for a note; '' where it is."""
        rounds = self.rounds
        texts = [position.answer.text for position in rounds.positions.values()]
        caller = CallerText(self.context.run.messages, also=texts)
        problem = problem_of(text, caller)
        if is_echo(text, self._request()):
            return ""
        if problem:
            return f"the synthesis was left out, for the position that most hold: it {problem}"
        of_answers = OF_ANSWERS.search(text) is not None and OF_ANSWERS.search(caller.text) is None
        if of_answers or any(not caller.contains([w]) for w in words_of([text]) if w in OF_DEBATES):
            return "the synthesis was left out, for the position that most hold: it is about the debate"
        if rounds.agreement <= HALF or await rounds.pool.agree(rounds.count.kind, text, rounds.outcome.text):
            return ""
        return "the synthesis does not say what most of the debaters hold: see the report"

    async def report(self) -> dict[str, Any]:
        """The report: positions and changes of mind by round. `voices` are the answers of the first round,
        the only independent ones."""
        rounds, evidence = self.rounds, self.rounds.evidence
        count = rounds.count if evidence.kept_answer is None else evidence.first
        pass_rate = count.groups[0].pass_rate
        examples = {"examples_passed": round(pass_rate, 3)} if pass_rate is not None else {}
        return examples | {
            "answer_kind": rounds.count.kind,
            "answer": rounds.outcome.text.strip(),
            "agreement": 0.0 if evidence.kept_answer is not None else round(rounds.agreement, 3),
            "ended": self.ended,
            "rounds": self._round_reports,
            "changes": sum(
                position["changed"] for each in self._round_reports for position in each["positions"]
            ),
            "flips": [flip.describe() for flip in evidence.flips],
            "flipped": evidence.flipped,
            "first_round_stands": evidence.refused,
            "voices": await self._voters(),
            "critiques": {"asked": rounds.critiques_requested, "usable": rounds.critiques_usable},
            "dropped": [
                {"debater": debater.number, "round": number, "reason": why}
                for debater, number, why in rounds.dropped
            ],
        }

    @property
    def _is_synthesised(self) -> bool:
        evidence, kind = self.rounds.evidence, self.rounds.count.kind
        return self.ended is not EndReason.ALONE and kind is AnswerKind.TEXT and not evidence.refused

    async def _note_flip(self) -> None:
        """Note where later rounds had another leader than the first one, and whether that was accepted."""
        evidence = self.rounds.evidence
        flip = next((each for each in reversed(evidence.flips) if each.debater is None), None)
        if flip is None:
            return
        before, after = (f"“{truncate(text, QUOTED_TOKENS)}”" for text in (flip.before, flip.after))
        weights = f"{flip.after_weight:.2f} of trust against {flip.before_weight:.2f}"
        if evidence.flipped:
            await self.context.warn(f"the debate changed its answer from {before} to {after}: {weights}")
        elif evidence.refused:
            await self.context.warn(
                f"the first round's answer {before} stands: those who changed to {after} followed others, "
                f"{weights}"
            )

    async def _voters(self) -> list[dict[str, Any]]:
        """The answers of the first round: `group` 0 is the debate's answer, other answers are numbered from
        1, None could not be counted."""
        rounds = self.rounds
        group_of = await rounds.evidence.first_round_groups(rounds.count, rounds.texts, rounds.outcome.text)
        return [
            {
                "voice": debater.number,
                "model": answer.finish.model,
                "node": answer.finish.node,
                "answer": clip(answer.text, REPORTED_TOKENS),
                "agrees": group_of.get(debater.number) == 0,
                "group": group_of.get(debater.number),
                "weight": round(debater.voter.weight, 3),
            }
            for debater, answer in sorted(rounds.first_answers, key=lambda each: each[0].number)
        ]

    def _why_over(self, number: int) -> EndReason | None:
        rounds = self.rounds
        if len(rounds.debaters) < 2:
            return EndReason.ALONE
        if rounds.agreement >= self._agree_at - ROUNDING:
            return EndReason.AGREEMENT
        if rounds.is_out_of_budget:
            return EndReason.BUDGET
        if number > 1 and not rounds.changes:
            return EndReason.NO_CHANGE
        return EndReason.LIMIT if number >= self._max_rounds else None

    def _position_report(self, debater: Debater) -> dict[str, Any]:
        position = self.rounds.positions[debater.number]
        report: dict[str, Any] = {
            "debater": debater.number,
            "role": debater.standpoint or debater.agent,
            "model": position.answer.finish.model,
            "node": position.answer.finish.node,
            "answer": clip(position.answer.text, REPORTED_TOKENS),
            "changed": position.changed,
            "reason": position.reason,
            "unchanged": position.unchanged,
        }
        if position.critique is not None:
            report["critique"] = position.critique.model_dump()
        return report

    def _request(self) -> str:
        rounds = self.rounds
        texts = "\n".join(f"- {text}" for text in rounds.summary(3 * self.context.limits.passed_tokens))
        return f"{rounds.conversation}\n\n{DEBATED_HEAD}\n{texts}\n\n{FOLLOW_DEBATERS}"

    async def _synthesis(self, on_delta: Callable[[TextDelta], None]) -> StepResult:
        """Raises the errors of a step."""
        rounds, run = self.rounds, self.context.run
        messages = (*rounds.conversation.system(), ChatMessage(role="user", content=self._request()))
        if run.guide is None:
            messages = with_instructions(messages, asked_kind(rounds.pool.question), think=False)
        self.context.budget.has_reserve = False
        return await self.context.ask(
            self._agent,
            messages,
            name="synthesis",
            on_delta=on_delta,
            options=StepOptions(
                sampling=run.sampling,
                guide=run.guide,
                model=self.context.trusted_model(self._agent, among=self._models),
            ),
        )
