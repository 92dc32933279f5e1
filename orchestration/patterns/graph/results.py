"""What came of tasks, and how it is passed on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from orchestration.errors import OrchestraError
from orchestration.patterns.base import StepResult
from orchestration.patterns.clipping import clip_fairly, truncate
from orchestration.patterns.graph.task import Task

State = Literal["waiting", "working", "done", "failed", "replaced", "left out"]
"""`replaced` did not begin, and another plan came instead; `left out` did not begin at all."""


@dataclass(slots=True)
class TaskResult:
    """Of one task. `began` and `ended` are seconds from the beginning of the first; `expected_s` is what it
    was thought to take before that."""

    task: Task
    state: State = "waiting"
    attempts: int = 0
    answer: StepResult | None = None
    error: OrchestraError | None = None
    began: float = 0.0
    ended: float = 0.0
    expected_s: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def text(self) -> str:
        return self.answer.text.strip() if self.answer is not None else ""

    @property
    def step(self) -> str:
        """The name of its latest step."""
        return step_name(self.task, self.attempts)

    def reported(self) -> dict[str, Any]:
        """As the report has it."""
        said: dict[str, Any] = {
            "id": self.task.id,
            "task": self.task.task,
            "agent": self.task.specialist,
            "inputs": list(self.task.inputs),
            "state": self.state,
        }
        if self.attempts:
            said |= {
                "step": self.step,
                "seconds": round(self.seconds, 3),
                "started": round(self.began, 3),
                "ended": round(self.ended, 3),
                "expected": round(self.expected_s, 3),
            }
        if self.answer is not None:
            said |= {"node": self.answer.finish.node, "model": self.answer.finish.model}
        if self.error is not None:
            said["error"] = self.error.code
        return said


def step_name(task: Task, attempt: int) -> str:
    return f"task {task.id}" if attempt < 2 else f"task {task.id} again"


def passed_on(results: Iterable[TaskResult], tokens: int) -> str:
    """What tasks brought, of about `tokens` tokens in all, and which brought nothing."""
    listed = list(results)
    texts = clip_fairly([result.text for result in listed if result.text], tokens)
    found = [
        f"{result.task.specialist} ({result.task.task}):\n{text}"
        for result, text in zip((each for each in listed if each.text), texts, strict=True)
    ]
    found += [
        f"{result.task.specialist} ({result.task.task}): nobody could do this"
        for result in listed
        if not result.text
    ]
    return "\n\n".join(found)


def title(result: TaskResult) -> str:
    """A task, as a note names it."""
    return f"task {result.task.id} ({result.task.specialist}: {truncate(result.task.task, 30)})"
