"""The rounds of a debate: all debaters answer, then criticise and improve."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Literal

from orchestration.errors import BackendFailed, BudgetExceeded, InvalidGuide, OrchestraError
from orchestration.messages import ChatMessage, GuidedDecoding, Sampling
from orchestration.patterns.answer_check import problem_of
from orchestration.patterns.base import StepOptions, StepResult
from orchestration.patterns.caller_text import CallerText
from orchestration.patterns.clipping import clip
from orchestration.patterns.consensus import (
    MIN_SIMILARITY,
    AnswerKind,
    VoteCount,
    asked_kind,
    cut_short,
    is_garbage,
    key_of,
)
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.debating.critique import (
    Critique,
    InvalidCritique,
    critique_request,
    critique_schema,
    parse_critique,
)
from orchestration.patterns.debating.debaters import Debater, Position
from orchestration.patterns.debating.evidence import Evidence
from orchestration.patterns.prompt_texts import ANSWERS_HEAD, IMPROVE
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.voting.answer_pool import AnswerPool
from orchestration.patterns.voting.decision import PanelDecision
from orchestration.patterns.voting.voters import one_model, with_instructions

SharedView = Literal["answers", "answers and critique", "summary"]
AskDebater = Callable[[Debater], Awaitable[Position]]
REMARK_TOKENS = 40
"""Tokens of each remark that is passed on."""


class DebateRounds:
    """The rounds of one debate. `debaters` are those still taking part; `positions` hold the latest of
    each."""

    def __init__(self, context: RunContext, debaters: Sequence[Debater], visible: SharedView) -> None:
        """Raises `InvalidRequest` when nothing is asked."""
        self.context = context
        self.debaters = list(debaters)
        self.positions: dict[int, Position] = {}
        self.first_answers: list[tuple[Debater, StepResult]] = []
        """The answers of the first round, those of dropped debaters included."""
        self.dropped: list[tuple[Debater, int, str]] = []
        """Dropped debaters, each with the round and the reason."""
        self.errors: list[OrchestraError] = []
        self.count = VoteCount(AnswerKind.TEXT, ())
        self.critiques_requested = self.critiques_usable = 0
        self.is_out_of_budget = False
        """Whether the budget was too small for a step."""
        self.conversation = Conversation.of(context.run.messages, context.limits)
        self.pool = AnswerPool(context, AnswerKind.AUTO, MIN_SIMILARITY)
        self.evidence = Evidence(self.pool)
        self.caller = CallerText(context.run.messages)
        self._visible = visible

    @property
    def agreement(self) -> float:
        """The share of all debaters taking part, by weight, that hold the leading position."""
        groups = self.count.groups
        counted = {voter for group in groups for voter in group.voters}
        whole = sum(group.weight for group in groups)
        whole += sum(debater.voter.weight for debater in self.debaters if debater.number not in counted)
        return groups[0].weight / whole if groups and whole else 0.0

    @property
    def outcome(self) -> StepResult:
        """The answer of the debate so far, in the words of its representative."""
        leader = self.count.leader
        assert leader is not None
        return self.evidence.kept_answer or self.positions[leader.representative].answer

    @property
    def texts(self) -> dict[int, str]:
        """The text of each debater's position."""
        return {number: position.answer.text for number, position in self.positions.items()}

    @property
    def changes(self) -> int:
        """The number of debaters that changed their mind in the last round."""
        return sum(position.changed for position in self.positions.values())

    async def run_first_round(self) -> None:
        """Run the first round: all answer at once, and see nothing of each other."""
        await self.conversation.warn_of_cuts(self.context)
        replies = await self._ask_all(self._answer)
        for debater, reply in zip(list(self.debaters), replies, strict=True):
            if isinstance(reply, OrchestraError):
                await self._handle_error(debater, 1, reply)
                continue
            self.first_answers.append((debater, reply.answer))
            if self._is_nonsense(reply.answer.text):
                await self._drop(debater, 1, "says nothing that makes sense")
            else:
                self._record_position(debater, reply)
        await self._count()
        voters = sorted((each.voter for each in self.debaters), key=lambda each: (-each.weight, each.number))
        if not one_model([voter.model for voter in voters]):
            self.count = PanelDecision(self.context.trust, self.pool, 1.0, voters).with_leader(self.count)
        answers = {number: position.answer for number, position in self.positions.items()}
        self.evidence.record_first_round(self.count, answers)

    async def run_round(self, number: int) -> None:
        """Run a later round: each debater sees the others' latest answers, criticises them, and improves its
        own."""
        stood = self.count, self.texts
        replies = await self._ask_all(lambda debater: self._improve(debater, number))
        before = {debater.number: self.positions[debater.number] for debater in self.debaters}
        for debater, reply in zip(list(self.debaters), replies, strict=True):
            if isinstance(reply, BudgetExceeded):
                old = before[debater.number]
                self._record_position(debater, _unchanged(old, "the budget was too small for a new one"))
            elif isinstance(reply, OrchestraError):
                await self._handle_error(debater, number, reply)
            elif not self._is_answer(reply.answer):
                old = before[debater.number]
                same = _unchanged(old, "the new one did not answer the question")
                self._record_position(debater, replace(same, critique=reply.critique))
            else:
                self._record_position(debater, reply)
        await self._count()
        for debater in self.debaters:
            position, old_text = self.positions[debater.number], before[debater.number].answer.text
            if position.answer.text != old_text:
                is_same = await self.pool.agree(self.count.kind, old_text, position.answer.text)
                position = replace(position, changed=not is_same)
            if not (position.changed or position.unchanged):
                position = replace(position, reason="")
            self.positions[debater.number] = position
        if self.debaters:
            changed = [each.number for each in self.debaters if self.positions[each.number].changed]
            self.count = await self.evidence.record_round(number, stood, (self.count, self.texts), changed)

    async def _ask_all(self, ask: AskDebater) -> list[Position | OrchestraError]:
        async def reply_of(debater: Debater) -> Position | OrchestraError:
            try:
                return await ask(debater)
            except OrchestraError as error:
                self.is_out_of_budget = self.is_out_of_budget or isinstance(error, BudgetExceeded)
                return error

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(reply_of(debater)) for debater in self.debaters]
        return [task.result() for task in running]

    async def _answer(self, debater: Debater) -> Position:
        message = ChatMessage(role="user", content=str(self.conversation))
        return Position(answer=await self._ask(debater, message, f"round 1 / {debater.name}"))

    async def _improve(self, debater: Debater, number: int) -> Position:
        name = f"round {number} / {debater.name}"
        own = await self.context.clipped(
            f"the answer of {debater.name}",
            self.positions[debater.number].answer.text,
            self.context.limits.passed_tokens,
        )
        others = self._others(debater)
        named = "\n\n".join(f"{who}:\n{text}" for who, text in others)
        critique = await self._criticise(debater, own, named, name)
        remarks = [critique.mine, critique.weaknesses] if critique is not None else []
        listed_remarks = "\n".join(f"- {remark}" for remark in remarks)
        remarks_text = f"\n\nRemarks:\n{listed_remarks}" if remarks else ""
        # SmolLM2-135M takes a position in 8 of 12 cases where the answers are listed like this, and in 1
        # where each stands below the name of its debater.
        listed = "\n".join(f"- {text}" for text in (own, *(text for _, text in others)))
        message = f"{self.conversation}\n\n{ANSWERS_HEAD}\n{listed}{remarks_text}\n\n{IMPROVE}"
        answer = await self._ask(debater, ChatMessage(role="user", content=message), name)
        return Position(answer=answer, reason=critique.mine if critique else "", critique=critique)

    async def _criticise(self, debater: Debater, own: str, others: str, name: str) -> Critique | None:
        """A debater's critique; None where its form is invalid: the improved answer does without."""
        self.critiques_requested += 1
        sampling = Sampling(max_tokens=self.context.limits.verdict_tokens, seed=debater.voter.sampling.seed)
        messages = critique_request(str(self.conversation), own, others)
        try:
            answer = await self.context.ask(
                debater.agent,
                (*debater.system(), *messages),
                name=f"{name}: critique",
                options=StepOptions(
                    sampling=sampling,
                    guide=GuidedDecoding(json_schema=critique_schema(self.context.limits.critique_chars)),
                    model=debater.voter.model,
                ),
            )
            critique = parse_critique(answer.text, self.caller)
        except (InvalidCritique, InvalidGuide, BackendFailed) as error:
            await self.context.progress(f"{name}: goes on without its critique: {error}")
            return None
        self.critiques_usable += 1
        return critique

    async def _ask(self, debater: Debater, message: ChatMessage, name: str) -> StepResult:
        run = self.context.run
        messages: tuple[ChatMessage, ...] = (*self.conversation.system(), *debater.system(), message)
        if run.guide is None:
            messages = with_instructions(messages, asked_kind(self.pool.question), think=False)
        return await self.context.ask(
            debater.agent,
            messages,
            name=name,
            options=StepOptions(sampling=debater.voter.sampling, guide=run.guide, model=debater.voter.model),
        )

    def _others(self, debater: Debater) -> list[tuple[str, str]]:
        """The names and texts of the others as `debater` sees them, of about twice `passed_tokens` in all."""
        tokens = self.context.limits.passed_tokens
        if self._visible == "summary":
            return [(f"Position {at}", text) for at, text in enumerate(self.summary(2 * tokens), 1)]
        others = [other for other in self.debaters if other.number != debater.number]
        each = min(tokens, 2 * tokens // len(others))
        remark_tokens = REMARK_TOKENS if self.context.is_small() else max(REMARK_TOKENS, each // 8)
        shown = []
        for other in others:
            position = self.positions[other.number]
            text = clip(position.answer.text, each)
            if self._visible == "answers and critique" and position.critique is not None:
                text += f"\n(Its criticism: {clip(position.critique.weaknesses, remark_tokens)})"
            shown.append((other.name.capitalize(), text))
        return shown

    def summary(self, tokens: int) -> list[str]:
        """One text of each position with the number of its debaters, of about `tokens` in all."""
        groups = self.count.groups
        each = min(self.context.limits.passed_tokens, tokens // max(1, len(groups)))
        return [
            f"{clip(self.positions[group.representative].answer.text, each)} "
            f"(held by {len(group.voters)} of {len(self.debaters)} debaters)"
            for group in groups
        ]

    def _is_answer(self, answer: StepResult) -> bool:
        """Whether a text answers the question, as far as the kind of answer tells."""
        kind, guide = self.count.kind, self.context.run.guide
        if self._is_nonsense(answer.text):
            return False
        if kind is AnswerKind.TEXT:
            return True
        whole = answer.finish.reason == "stop"
        return not cut_short(kind, answer.text, whole=whole) and (
            key_of(kind, answer.text, self.pool.question, guide) is not None
        )

    def _is_nonsense(self, text: str) -> bool:
        return is_garbage(text) or (self.context.run.guide is None and bool(problem_of(text, self.caller)))

    def _record_position(self, debater: Debater, position: Position) -> None:
        self.positions[debater.number] = position
        self.pool.add(debater.voter, position.answer)

    async def _handle_error(self, debater: Debater, number: int, error: OrchestraError) -> None:
        self.errors.append(error)
        if isinstance(error, BudgetExceeded):  # the context warns of it
            self._remove(debater, number, error.message)
        else:
            await self._drop(debater, number, error.message)

    async def _drop(self, debater: Debater, number: int, why: str) -> None:
        self._remove(debater, number, why)
        await self.context.warn(f"went on without {debater}: {why}")

    def _remove(self, debater: Debater, number: int, why: str) -> None:
        self.debaters.remove(debater)
        self.dropped.append((debater, number, why))

    async def _count(self) -> None:
        """Count the positions."""
        if not self.debaters:  # what was held before is the best there is
            return
        for debater, _, _ in self.dropped:
            self.positions.pop(debater.number, None)
            self.pool.answers.pop(debater.number, None)
        self.count = await self.pool.count()
        if self.count.leader is None:
            self.count = await self.pool.count_texts()
        await self.pool.warn_of_word_comparison(self.count)


def _unchanged(position: Position, why: str) -> Position:
    return replace(position, changed=False, unchanged=True, reason=why, critique=None)
