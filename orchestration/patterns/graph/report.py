"""What the caller is told of a question that was split up."""

from __future__ import annotations

from typing import Any

from orchestration.patterns.graph.results import TaskResult, title
from orchestration.patterns.graph.schedule import critical_path
from orchestration.patterns.graph.task_executor import TaskExecutor


def execution_report(crew: TaskExecutor) -> dict[str, Any]:
    """All tasks with their times in seconds from the beginning of the first, and the wall time beside the
    critical path, than which no schedule is faster. A task's time has everything in it: what it waited for a
    node, what it looked up, and a second attempt."""
    begun = [result for result in crew.results.values() if result.attempts]
    path, critical_s = critical_path(
        [result.task for result in begun], {result.task.id: result.seconds for result in begun}
    )
    wall_s = max((result.ended for result in begun), default=0.0) - min(
        (result.began for result in begun), default=0.0
    )
    return {
        "tasks": [result.reported() for result in crew.results.values()],
        "critical_path": path,
        "critical_path_s": round(critical_s, 3),
        "wall_s": round(wall_s, 3),
        "ratio": round(wall_s / critical_s, 3) if critical_s else 1.0,
        "repaired": crew.graph.mended,
        "replanned": crew.is_planned_anew,
        "partial": bool(crew.missing),
    }


def missing_note(crew: TaskExecutor) -> str:
    """What the answer is without, for a note; '' where it is without nothing."""
    missing = crew.missing
    if not missing:
        return ""
    return f"partial answer, without {'; '.join(f'{title(each)}: {_why(each)}' for each in missing)}"


def _why(result: TaskResult) -> str:
    return result.error.message if result.error is not None else "it was not begun"
