"""The results of tasks: their states and times, how they are passed on, and what the report says of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from orchestration.errors import OrchestraError
from orchestration.patterns.base import StepResult
from orchestration.patterns.clipping import clip_fairly, truncate
from orchestration.patterns.graph.schedule import critical_path
from orchestration.patterns.graph.task import Task

TITLE_TOKENS = 30
"""Tokens of a task that a note to the caller quotes."""
State = Literal["waiting", "working", "done", "failed", "replaced", "left out"]
"""`replaced`: not started, and another plan came instead; `left out`: not started at all."""


@dataclass(slots=True)
class TaskResult:
    """The result of one task. `started` and `ended` are seconds since the executor was created, `expected_s`
    is the estimate made at that time. `revision` is the round of revision that the answer is from, 0 for the
    first answer."""

    task: Task
    state: State = "waiting"
    attempts: int = 0
    answer: StepResult | None = None
    error: OrchestraError | None = None
    started: float = 0.0
    ended: float = 0.0
    expected_s: float = 0.0
    revision: int = 0

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def text(self) -> str:
        return self.answer.text.strip() if self.answer is not None else ""

    @property
    def step(self) -> str:
        """The name of the latest step of the task."""
        return step_name(self.task, self.attempts, self.revision)

    def describe(self) -> dict[str, Any]:
        """The result as the report has it; times in seconds."""
        report: dict[str, Any] = {
            "id": self.task.id,
            "task": self.task.task,
            "agent": self.task.specialist,
            "inputs": list(self.task.inputs),
            "state": self.state,
        }
        if self.attempts:
            report |= {
                "step": self.step,
                "seconds": round(self.seconds, 3),
                "started": round(self.started, 3),
                "ended": round(self.ended, 3),
                "expected": round(self.expected_s, 3),
            }
        if self.answer is not None:
            report |= {"node": self.answer.finish.node, "model": self.answer.finish.model}
        if self.error is not None:
            report["error"] = self.error.code
        return report


def step_name(task: Task, attempt: int, revision: int = 0) -> str:
    if revision:
        return f"{task.step}, revision {revision}"
    return task.step if attempt < 2 else f"{task.step} again"


def results_text(results: Iterable[TaskResult], tokens: int) -> str:
    """The texts of results, of about `tokens` tokens in all, and which tasks have none."""
    listed = list(results)
    found = [result for result in listed if result.text]
    texts = clip_fairly([result.text for result in found], tokens)
    shown = [
        f"{result.task.label} ({result.task.task}):\n{text}"
        for result, text in zip(found, texts, strict=True)
    ]
    shown += [f"{each.task.label} ({each.task.task}): no result" for each in listed if not each.text]
    return "\n\n".join(shown)


def title(result: TaskResult) -> str:
    """A task as a note to the caller names it."""
    return f"{result.task.step} ({result.task.specialist}: {truncate(result.task.task, TITLE_TOKENS)})"


def timing_report(results: Collection[TaskResult]) -> dict[str, Any]:
    """All tasks with their times in seconds, and the wall time beside the critical path, than which no
    schedule is faster. The time of a task includes waiting for a node, tools, and a second attempt."""
    started = [result for result in results if result.attempts]
    path, critical_s = critical_path(
        [result.task for result in started], {result.task.id: result.seconds for result in started}
    )
    ended = max((result.ended for result in started), default=0.0)
    wall_s = ended - min((result.started for result in started), default=0.0)
    return {
        "tasks": [result.describe() for result in results],
        "critical_path": path,
        "critical_path_s": round(critical_s, 3),
        "wall_s": round(wall_s, 3),
        "ratio": round(wall_s / critical_s, 3) if critical_s else 1.0,
    }


def missing_note(missing: Collection[TaskResult]) -> str:
    """What the answer lacks, for a note to the caller; '' where nothing is missing."""
    if not missing:
        return ""
    reasons = (
        f"{title(each)}: {each.error.message if each.error is not None else 'it was not started'}"
        for each in missing
    )
    return f"partial answer, without {'; '.join(reasons)}"
