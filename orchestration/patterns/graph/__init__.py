"""A question as a graph of subtasks: planned, checked, put in order and carried out."""

from orchestration.patterns.graph.planner import Planner
from orchestration.patterns.graph.report import execution_report, missing_note
from orchestration.patterns.graph.results import TaskResult, passed_on, title
from orchestration.patterns.graph.schedule import TaskOrder
from orchestration.patterns.graph.task import Task, TaskGraph
from orchestration.patterns.graph.task_executor import TaskExecutor
from orchestration.patterns.graph.validation import PlanLimits

__all__ = [
    "PlanLimits",
    "Planner",
    "Task",
    "TaskExecutor",
    "TaskGraph",
    "TaskOrder",
    "TaskResult",
    "execution_report",
    "missing_note",
    "passed_on",
    "title",
]
