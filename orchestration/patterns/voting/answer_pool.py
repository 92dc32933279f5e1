"""The answers of one vote, and their count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestration.errors import OrchestraError
from orchestration.patterns.answer_check import is_echo, problem_of, without_end_marks
from orchestration.patterns.base import StepResult
from orchestration.patterns.caller_text import CallerText
from orchestration.patterns.consensus import (
    MIN_OVERLAP,
    AnswerKind,
    Vote,
    VoteCount,
    count_votes,
    is_garbage,
    key_of,
    kind_of,
    similarity_matrix,
)
from orchestration.patterns.consensus.kinds import cut_short
from orchestration.patterns.consensus.reading import SURE_CONFIDENCE, read_answer
from orchestration.patterns.consensus.refusal import is_refusal
from orchestration.patterns.conversation import last_question_index
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.voting.extraction import extract_keys
from orchestration.patterns.voting.program_tests import ProgramTests
from orchestration.patterns.voting.voters import Voter, one_model

_VALUES = (AnswerKind.NUMBER, AnswerKind.MATH, AnswerKind.CHOICE)


class AnswerPool:
    """Collects the answers of one vote. With the kind `AUTO`, the kind of answer is found from the question
    and the answers. `min_similarity` is the cosine from which two texts count as the same answer."""

    def __init__(self, context: RunContext, kind: AnswerKind, min_similarity: float) -> None:
        self.answers: dict[int, StepResult] = {}
        """The answers by the numbers of their voters."""
        self.question = context.run.messages[last_question_index(context.run.messages)].content
        self._context = context
        self._caller = CallerText(context.run.messages)
        self._kind = kind
        self._min_similarity = min_similarity
        self._voters: dict[int, Voter] = {}
        self._vectors: dict[str, list[float]] = {}
        self._can_embed = True
        self._embedding_error = ""
        """Why texts are compared by their words; '' once the caller was warned."""
        self._sound: set[int] = set()
        """The voters whose answers make sense."""
        self._tests = ProgramTests(context, self.question)
        self._extracted: dict[int, str] = {}
        """The keys of answers that a model had to read."""
        self.unclear: list[Voter] = []
        """The voters whose answers, as of the latest count, no rule could read with confidence."""

    def add(self, voter: Voter, answer: StepResult) -> None:
        text = without_end_marks(answer.text)
        guided = self._context.run.guide is not None
        if guided or not (is_garbage(text) or problem_of(text, self._caller)):
            self._sound.add(voter.number)
        else:
            self._sound.discard(voter.number)
        self.answers[voter.number] = answer if text is answer.text else replace(answer, text=text)
        self._voters[voter.number] = voter

    async def count(self) -> VoteCount:
        """Count the answers; their order does not matter. An answer that makes no sense, such as one that
        repeats itself, counts only where it clearly takes an option or names a value."""
        guide, kind = self._context.run.guide, self._kind
        if kind is AnswerKind.AUTO:
            sound = [answer.text for number, answer in self._sorted() if number in self._sound]
            kind = kind_of(self.question, sound, guide)
        counted = self._sound
        if kind in (AnswerKind.TEXT, AnswerKind.EXACT) and guide is None:
            counted = self._without_refusals()
        self.unclear = []
        keyed = kind is not AnswerKind.TEXT
        numbers = sorted(counted if kind not in _VALUES else self.answers)
        votes = [self._vote(kind, number) for number in numbers]
        votes = [vote for vote in votes if not keyed or vote.key is not None]
        if kind is AnswerKind.CODE and guide is None:
            votes = [await self._tested(vote) for vote in votes]
        return await self._count(kind, votes)

    def _without_refusals(self) -> set[int]:
        """The voters with sensible answers, without refusals and repetitions of the question. Where these are
        the majority they stay: the majority decides whether to answer at all."""
        answers = {
            number
            for number in self._sound
            if not (is_refusal(text := self.answers[number].text) or is_echo(text, self.question))
        }
        return answers if 2 * len(answers) > len(self._sound) else self._sound

    async def warn_of_word_comparison(self, count: VoteCount) -> None:
        """Warn the caller, once, where the count rests on a comparison of words."""
        if count.kind is AnswerKind.TEXT and self._embedding_error:
            await self._context.warn(f"the answers were compared by their words: {self._embedding_error}")
            self._embedding_error = ""

    async def extract(self, kind: AnswerKind) -> bool:
        """Have a small model read the unclear answers, within the budget. Returns whether it could read
        any."""
        texts = {voter.number: self.answers[voter.number].text for voter in self.unclear}
        found = await extract_keys(self._context, kind, self.question, texts)
        self._extracted |= found
        return bool(found)

    async def count_texts(self) -> VoteCount:
        """The count where no answer is valid: the texts are compared all the same."""
        numbers = [number for number, answer in self._sorted() if answer.text.strip()] or [*self.answers]
        return await self._count(AnswerKind.TEXT, [self._vote(AnswerKind.TEXT, number) for number in numbers])

    async def agree(self, kind: AnswerKind, one: str, other: str) -> bool:
        """Whether two answers to the question are the same. Programs that were tested are the same where
        their results are."""
        if kind is AnswerKind.CODE:
            one_trial, other_trial = self._tests.known(one), self._tests.known(other)
            if one_trial is not None and other_trial is not None:
                return one_trial.key == other_trial.key
        if kind is not AnswerKind.TEXT:
            guide = self._context.run.guide
            keys = [key_of(kind, text, self.question, guide) for text in (one, other)]
            return keys[0] == keys[1]
        vectors = await self._embedded([one, other])
        threshold = self._min_similarity if vectors is not None else MIN_OVERLAP
        return bool(similarity_matrix([one, other], vectors)[0, 1] >= threshold)

    def weight_of(self, numbers: Sequence[int]) -> float:
        """The joint weight of these voters' votes for one answer."""
        if one_model([voter.model for voter in self._voters.values()]):
            return sum(self._voters[number].weight for number in numbers)
        return self._context.trust.group_weight(self.models_of(numbers))

    def models_of(self, numbers: Sequence[int]) -> list[str]:
        """The models that gave the answers of these voters."""
        return [self._voters[number].model or self.answers[number].finish.model for number in numbers]

    def _sorted(self) -> list[tuple[int, StepResult]]:
        return sorted(self.answers.items())

    def _vote(self, kind: AnswerKind, number: int) -> Vote:
        answer, voter = self.answers[number], self._voters[number]
        key = self._extracted.get(number)
        if key is None and kind is not AnswerKind.TEXT and not self._is_no_answer(kind, answer):
            reading = read_answer(kind, answer.text, self.question, self._context.run.guide)
            is_sure, is_sound = reading.confidence >= SURE_CONFIDENCE, number in self._sound
            if is_sound or (is_sure and kind in _VALUES):
                key = reading.key
            if is_sound and not is_sure and (reading.key is not None or not is_refusal(answer.text)):
                self.unclear.append(voter)
        return Vote(voter=number, text=answer.text, weight=voter.weight, key=key)

    def _is_no_answer(self, kind: AnswerKind, answer: StepResult) -> bool:
        """Whether the answer ran out of tokens before its conclusion, or only repeats the question's
        options."""
        cut = cut_short(kind, answer.text, whole=answer.finish.reason == "stop")
        return cut or (kind is AnswerKind.CHOICE and is_echo(answer.text, self.question))

    async def _tested(self, vote: Vote) -> Vote:
        """The vote for a program, with its test results as key: programs that do the same on the question's
        examples agree, however they are written."""
        trial = await self._tests.of(vote.voter, vote.text)
        return vote if trial is None else replace(vote, key=trial.key, pass_rate=trial.pass_rate)

    async def _count(self, kind: AnswerKind, votes: Sequence[Vote]) -> VoteCount:
        texts = [vote.text for vote in votes]
        vectors = await self._embedded(texts) if kind is AnswerKind.TEXT and len(texts) > 1 else None
        threshold = self._min_similarity if vectors is not None else MIN_OVERLAP
        valid = {vote.voter for vote in votes}
        invalid = [number for number, _ in self._sorted() if number not in valid]
        return count_votes(
            kind, votes, invalid, similarity_matrix(texts, vectors), threshold, self._weight_of_votes
        )

    def _weight_of_votes(self, votes: Sequence[Vote]) -> float:
        return self.weight_of([vote.voter for vote in votes])

    async def _embedded(self, texts: Sequence[str]) -> list[list[float]] | None:
        """The vectors of texts; None where no embedding model answers."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new and self._can_embed:
            try:
                self._vectors.update(zip(new, await self._context.embed(new), strict=True))
            except OrchestraError as error:
                self._can_embed = False
                self._embedding_error = error.message
        return [self._vectors[text] for text in texts] if self._can_embed else None
