"""Asks a replay cluster every question by one pattern, and rates the first answers as a user would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from actors.backends.recorded import RecordedQuestion
from actors.evaluation.runner import QuestionAttempts, affects_every_question, models_used, run_concurrently
from actors.evaluation.settings import EvaluationSettings
from actors.evaluation.store import ResultsFile
from actors.replay.cluster import ReplayCluster
from actors.replay.reader import AnswerScorer
from actors.replay.spec import RecordedSet, ReplaySpec
from actors.runtime.envelope import Envelope
from actors.runtime.service_client import chat_whole, feedback_call
from orchestration.errors import OrchestraError
from orchestration.evaluation.result import Result

STOP_TIMEOUT_S = 5.0
"""How long to wait for stopped answers to end after the answer of the pattern."""
FEEDBACK_TIMEOUT_S = 10.0
"""How long to repeat a rating until the entry of its run exists."""
_POLL_S = 0.02


class ReplayResult(Result):
    """The result of one replayed question."""

    completion_tokens: int = 0
    """The completion tokens in the usage of the answer."""
    written: dict[str, int] = Field(default_factory=dict)
    """The tokens that each model gave out for the question, counted by the backends."""
    model: str = ""
    """The model that the answer names."""
    report: dict[str, Any] = Field(default_factory=dict)
    feedback_counted: bool | None = None
    """Whether the rating was counted. None if none was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRunner:
    """Replays the questions. After the last rating it waits `settle_s`, until all processes have its
    effect."""

    cluster: ReplayCluster
    recorded: RecordedSet
    spec: ReplaySpec
    reader: AnswerScorer
    results: ResultsFile[ReplayResult]
    settings: EvaluationSettings
    timeout_s: float
    settle_s: float
    on_result: Callable[[ReplayResult], None]

    async def run(self, pattern: str, concurrency: int) -> None:
        """Ask the questions that are not answered yet; those to be rated come first.

        Raises errors that would affect all questions. Other errors are results.
        """

        async def one(waiting: tuple[RecordedQuestion, bool]) -> None:
            result = await self._ask(pattern, *waiting)
            self.results.add(result)
            self.on_result(result)

        records, rated = self.recorded.records, self.spec.feedback
        for part, with_rating in ((records[:rated], True), (records[rated:], False)):
            left = [each for each in part if not self.results.is_answered(pattern, str(each.id))]
            if not left:
                continue
            await run_concurrently(concurrency, iter([(each, with_rating) for each in left]), one)
            if with_rating:
                await asyncio.sleep(self.settle_s)

    async def _ask(self, pattern: str, record: RecordedQuestion, with_rating: bool) -> ReplayResult:
        attempts, key, began = QuestionAttempts(self.settings), str(record.id), time.monotonic()
        body = self.spec.body(pattern, record)
        try:
            response = await attempts.run(
                lambda: chat_whole(self.cluster.bus, body, Envelope.within(self.timeout_s))
            )
        except OrchestraError as error:
            if affects_every_question(error):
                raise
            return ReplayResult(pattern=pattern, question=key, attempts=attempts.number, error=error.body())
        seconds = round(time.monotonic() - began, 3)
        await self._wait_until_written(key)
        text = response["choices"][0]["message"].get("content") or ""
        answer = self.reader.read(record, text)
        right = answer == self.reader.gold(record)
        own = response.get("orchestra") or {}
        run = own.get("run", "")
        usage = response.get("usage") or {}
        return ReplayResult(
            pattern=pattern,
            question=key,
            text=text,
            answer=answer,
            score=float(right),
            tokens=int(usage.get("total_tokens", 0)),
            completion_tokens=int(usage.get("completion_tokens", 0)),
            written=self.cluster.written(key),
            calls=sum(1 for step in own.get("steps", ()) if not step.get("tool")),
            seconds=seconds,
            attempts=attempts.number,
            run=run,
            model=own.get("model") or "",
            notes=tuple(own.get("notes") or ()),
            models=models_used(own, usage),
            report=own.get("report") or {},
            feedback_counted=await self._rate(run, right) if with_rating else None,
        )

    async def _wait_until_written(self, question: str) -> None:
        """Wait until no member writes an answer to the question any more."""
        for _ in range(round(STOP_TIMEOUT_S / _POLL_S)):
            if not self.cluster.is_writing(question):
                return
            await asyncio.sleep(_POLL_S)

    async def _rate(self, run: str, right: bool) -> bool:
        """Rate the answer. The entry of the run may appear a moment after its answer."""
        until = time.monotonic() + FEEDBACK_TIMEOUT_S
        while True:
            try:
                await feedback_call(self.cluster.bus, {"run": run, "score": "good" if right else "bad"})
            except OrchestraError as error:
                if error.code not in ("unknown_run", "run_not_ended") or time.monotonic() > until:
                    return False
                await asyncio.sleep(_POLL_S)
            else:
                return True
