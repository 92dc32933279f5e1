"""Asks a cluster every question by every pattern, some at once, and records what comes of each."""

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
"""Fields of a request that are the same for all questions: one that is refused is refused for all."""


@dataclass(slots=True)
class StreamedAnswer:
    """One answer as it came."""

    began: float
    first_token_s: float | None = None
    text: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)

    def take(self, chunk: dict[str, Any]) -> None:
        """One chunk of the chat API."""
        extra = chunk.get("orchestra") or {}
        if "steps" in extra:
            self.said = extra
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
        """Read and written by all steps."""
        return int(self.usage.get("total_tokens", 0))

    @property
    def models(self) -> dict[str, Usage]:
        return models_used(self.said, self.usage)


def models_used(own: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Usage]:
    """The usage by model, from what an answer tells of its run and its `usage`; of a model that was asked
    without a run around it, all there is."""
    by_model = own.get("usage", {}).get("by_model")
    if by_model is None:
        by_model = {own["model"]: usage} if own.get("model") else {}
    return {model: Usage.model_validate(used) for model, used in by_model.items()}


class QuestionAttempts:
    """Of one question: one that a limit or a lack of nodes refuses is asked again. `number` is that of the
    latest."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self._policy = RetryPolicy(max_attempts=settings.attempts, max_pause_s=settings.max_pause_s)
        self.number = 0

    async def made(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Raises the last attempt's error."""
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
    """`timeout_s` is for one attempt at one question. `on_result` hears each result."""

    bus: Bus
    spec: Spec
    results: ResultsFile[Result]
    settings: EvaluationSettings
    timeout_s: float
    on_result: Callable[[Result], None]

    async def run(self, dataset: Dataset, patterns: Sequence[str], concurrency: int) -> None:
        """Ask what was not answered yet, each question by one pattern after the other: whatever is there when
        it is stopped can be compared.

        Raises the error of what would fail for all questions: a pattern, a model or a setting that the
        cluster does not take, a cluster that is gone. Other errors are results.
        """

        async def one(waiting: tuple[str, DatasetQuestion]) -> None:
            result = await self._asked(*waiting)
            self.results.add(result)
            self.on_result(result)

        await run_concurrently(concurrency, self._waiting(dataset, patterns), one)

    def _waiting(self, dataset: Dataset, patterns: Sequence[str]) -> Iterator[tuple[str, DatasetQuestion]]:
        for question in dataset.questions:
            for pattern in patterns:
                if not self.results.is_answered(pattern, question.id):
                    yield pattern, question

    async def _asked(self, pattern: str, question: DatasetQuestion) -> Result:
        attempts = QuestionAttempts(self.settings)
        try:
            heard = await attempts.made(lambda: self._attempt(pattern, question))
        except OrchestraError as error:
            if affects_every_question(error):
                raise
            return Result(pattern=pattern, question=question.id, attempts=attempts.number, error=error.body())
        return self._judged(pattern, question, heard, attempts.number)

    async def _attempt(self, pattern: str, question: DatasetQuestion) -> tuple[StreamedAnswer, float]:
        heard = StreamedAnswer(time.monotonic())
        envelope = Envelope.within(self.timeout_s)
        async with aclosing(chat(self.bus, self.spec.body(pattern, question), envelope)) as chunks:
            async for chunk in chunks:
                heard.take(chunk)
        return heard, time.monotonic() - heard.began

    def _judged(
        self, pattern: str, question: DatasetQuestion, answered: tuple[StreamedAnswer, float], attempts: int
    ) -> Result:
        heard, seconds = answered
        text = "".join(heard.text)
        judged = question.judge(text)
        return Result(
            pattern=pattern,
            question=question.id,
            text=text,
            answer=judged.answer,
            score=judged.score,
            tokens=heard.tokens,
            calls=sum(1 for step in heard.said.get("steps", ()) if not step.get("tool")),
            seconds=round(seconds, 3),
            first_token_s=None if heard.first_token_s is None else round(heard.first_token_s, 3),
            attempts=attempts,
            run=heard.said.get("run", ""),
            notes=tuple(heard.said.get("notes", ())),
            models=heard.models,
        )


async def run_concurrently(
    concurrency: int, items: Iterator[Item], work: Callable[[Item], Awaitable[None]]
) -> None:
    """Do the work for each item. Raises the first `OrchestraError` of one, and begins no other."""

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
    """Whether every question would get the error: for what all of them have in common."""
    if isinstance(error, InvalidRequest):
        return (error.param or "").split(".")[0] in _SHARED_FIELDS
    return isinstance(error, UnknownModel | BusUnavailable) or type(error) is Unavailable


def _first(group: BaseExceptionGroup[OrchestraError]) -> OrchestraError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, OrchestraError)
    return found
