"""Sends every question to a cluster for every pattern, several at once, and records the results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from actors.bus.bus import Bus
from actors.evaluation.dataset import Dataset, DatasetQuestion
from actors.evaluation.settings import EvaluationSettings
from actors.evaluation.spec import Spec
from actors.evaluation.store import ResultsFile
from actors.runtime.envelope import Envelope
from actors.runtime.service_client import chat
from orchestration.errors import (
    BusUnavailable,
    InvalidRequest,
    OrchestraError,
    Overloaded,
    Unavailable,
    UnknownModel,
)
from orchestration.evaluation.result import Result
from orchestration.messages import Usage
from orchestration.retries import RetryPolicy

T = TypeVar("T")
Item = TypeVar("Item")
_SHARED_FIELDS = ("model", "orchestra", "seed", "temperature", "max_tokens")
"""Request fields that are the same for all questions: if one is refused, it is refused for all."""


@dataclass(slots=True)
class StreamedAnswer:
    """A streamed answer."""

    began: float
    first_token_s: float | None = None
    text: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    extension: dict[str, Any] = field(default_factory=dict)

    def add(self, chunk: dict[str, Any]) -> None:
        """Add one chunk of the chat API."""
        extra = chunk.get("orchestra") or {}
        if "steps" in extra:
            self.extension = extra
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices", ()):
            text = choice.get("delta", {}).get("content") or ""
            if text and self.first_token_s is None:
                self.first_token_s = time.monotonic() - self.began
            if extra.get("replaces"):
                self.text.clear()
            self.text.append(text[extra.get("replaces", 0) :])

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens of all steps."""
        return int(self.usage.get("total_tokens", 0))

    @property
    def models(self) -> dict[str, Usage]:
        return models_used(self.extension, self.usage)


def models_used(own: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Usage]:
    """Return the usage by model, from the `orchestra` extension `own` of an answer and its `usage`. For a
    model that was asked without a run, it is all of `usage`."""
    by_model = own.get("usage", {}).get("by_model")
    if by_model is None:
        by_model = {own["model"]: usage} if own.get("model") else {}
    return {model: Usage.model_validate(used) for model, used in by_model.items()}


class QuestionAttempts:
    """Repeats attempts at one question that a limit or a lack of nodes refuses. `number` is that of the
    latest."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self._policy = RetryPolicy(max_attempts=settings.attempts, max_pause_s=settings.max_pause_s)
        self.number = 0

    async def run(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return the result of the first successful attempt. Raises the error of the last one."""
        while True:
            self.number += 1
            try:
                return await attempt()
            except (Overloaded, Unavailable) as error:
                if self.number >= self._policy.max_attempts:
                    raise
                pause_s = max(self._policy.pause_s(self.number), error.retry_after_s or 0.0)
            await asyncio.sleep(min(pause_s, self._policy.max_pause_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRunner:
    """Runs an evaluation. `timeout_s` limits one attempt at one question. `on_result` is called with each
    result."""

    bus: Bus
    spec: Spec
    results: ResultsFile[Result]
    settings: EvaluationSettings
    timeout_s: float
    on_result: Callable[[Result], None]

    async def run(self, dataset: Dataset, patterns: Sequence[str], concurrency: int) -> None:
        """Ask the questions that are not answered yet, each by all patterns before the next question: the
        results can be compared whenever the evaluation is stopped.

        Raises errors that would affect all questions: a pattern, a model or a setting that the cluster
        refuses, or an unreachable cluster. Other errors are results.
        """

        async def one(waiting: tuple[str, DatasetQuestion]) -> None:
            result = await self._ask(*waiting)
            self.results.add(result)
            self.on_result(result)

        await run_concurrently(concurrency, self._waiting(dataset, patterns), one)

    def _waiting(self, dataset: Dataset, patterns: Sequence[str]) -> Iterator[tuple[str, DatasetQuestion]]:
        for question in dataset.questions:
            for pattern in patterns:
                if not self.results.is_answered(pattern, question.id):
                    yield pattern, question

    async def _ask(self, pattern: str, question: DatasetQuestion) -> Result:
        attempts = QuestionAttempts(self.settings)
        try:
            answer = await attempts.run(lambda: self._attempt(pattern, question))
        except OrchestraError as error:
            if affects_every_question(error):
                raise
            return Result(pattern=pattern, question=question.id, attempts=attempts.number, error=error.body())
        return self._judged(pattern, question, answer, attempts.number)

    async def _attempt(self, pattern: str, question: DatasetQuestion) -> tuple[StreamedAnswer, float]:
        answer = StreamedAnswer(time.monotonic())
        envelope = Envelope.within(self.timeout_s)
        async with aclosing(chat(self.bus, self.spec.body(pattern, question), envelope)) as chunks:
            async for chunk in chunks:
                answer.add(chunk)
        return answer, time.monotonic() - answer.began

    def _judged(
        self, pattern: str, question: DatasetQuestion, answered: tuple[StreamedAnswer, float], attempts: int
    ) -> Result:
        answer, seconds = answered
        text = "".join(answer.text)
        judged = question.judge(text)
        return Result(
            pattern=pattern,
            question=question.id,
            text=text,
            answer=judged.answer,
            score=judged.score,
            tokens=answer.tokens,
            calls=sum(1 for step in answer.extension.get("steps", ()) if not step.get("tool")),
            seconds=round(seconds, 3),
            first_token_s=None if answer.first_token_s is None else round(answer.first_token_s, 3),
            attempts=attempts,
            run=answer.extension.get("run", ""),
            notes=tuple(answer.extension.get("notes", ())),
            models=answer.models,
        )


async def run_concurrently(
    concurrency: int, items: Iterator[Item], work: Callable[[Item], Awaitable[None]]
) -> None:
    """Do the work for each item, `concurrency` at once. After the first `OrchestraError` no other item
    starts, and the error is raised."""

    async def worker() -> None:
        for item in items:
            await work(item)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(concurrency):
                tasks.create_task(worker())
    except* OrchestraError as group:
        raise _first(group) from None


def affects_every_question(error: OrchestraError) -> bool:
    """Whether every question would get this error, because its cause is common to all."""
    if isinstance(error, InvalidRequest):
        return (error.param or "").split(".")[0] in _SHARED_FIELDS
    return isinstance(error, UnknownModel | BusUnavailable) or type(error) is Unavailable


def _first(group: BaseExceptionGroup[OrchestraError]) -> OrchestraError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, OrchestraError)
    return found
