"""Asks a replaying cluster every question by a pattern, and gives a user's word on the first of them."""

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
"""How long stopped answers may take to end after the pattern's answer."""
FEEDBACK_TIMEOUT_S = 10.0
"""How long the record of a run may take until a word on it is counted."""
_POLL_S = 0.02


class ReplayResult(Result):
    """`written` are the tokens that each model gave out for this question, by the backends' own count;
    `completion_tokens` those of the answer's usage. `feedback_counted` says whether a user's word was
    counted."""

    completion_tokens: int = 0
    written: dict[str, int] = Field(default_factory=dict)
    model: str = ""
    """Who is told to have answered."""
    report: dict[str, Any] = Field(default_factory=dict)
    feedback_counted: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRunner:
    """`settle_s` is waited for after the last user's word, until what it taught is known everywhere."""

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
        """Ask what was not answered yet; the questions without a word after all with one.

        Raises the error of what would fail for all questions. Other errors are results.
        """

        async def one(waiting: tuple[RecordedQuestion, bool]) -> None:
            result = await self._asked(pattern, *waiting)
            self.results.add(result)
            self.on_result(result)

        records, rated = self.recorded.records, self.spec.feedback
        for part, gets_word in ((records[:rated], True), (records[rated:], False)):
            left = [each for each in part if not self.results.is_answered(pattern, str(each.id))]
            if not left:
                continue
            await run_concurrently(concurrency, iter([(each, gets_word) for each in left]), one)
            if gets_word:
                await asyncio.sleep(self.settle_s)

    async def _asked(self, pattern: str, record: RecordedQuestion, gets_word: bool) -> ReplayResult:
        attempts, key, began = QuestionAttempts(self.settings), str(record.id), time.monotonic()
        body = self.spec.body(pattern, record)
        try:
            said = await attempts.made(
                lambda: chat_whole(self.cluster.bus, body, Envelope.within(self.timeout_s))
            )
        except OrchestraError as error:
            if affects_every_question(error):
                raise
            return ReplayResult(pattern=pattern, question=key, attempts=attempts.number, error=error.body())
        seconds = round(time.monotonic() - began, 3)
        await self._written(key)
        text = said["choices"][0]["message"].get("content") or ""
        answer = self.reader.read(record, text)
        right = answer == self.reader.gold(record)
        own = said.get("orchestra") or {}
        run = own.get("run", "")
        usage = said.get("usage") or {}
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
            feedback_counted=await self._word(run, right) if gets_word else None,
        )

    async def _written(self, question: str) -> None:
        """Until no member gives out an answer to it any more."""
        for _ in range(round(STOP_TIMEOUT_S / _POLL_S)):
            if not self.cluster.is_writing(question):
                return
            await asyncio.sleep(_POLL_S)

    async def _word(self, run: str, right: bool) -> bool:
        """Say whether the answer was good. The run's own record may come a moment after its answer."""
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
