"""A question as a graph of tasks: planned, checked, scheduled and executed."""

from orchestration.patterns.graph.plan_forms import INPUTS, STAGES, InvalidPlan, PlanForm
from orchestration.patterns.graph.planner import Planner
from orchestration.patterns.graph.results import TaskResult, missing_note, results_text, timing_report, title
from orchestration.patterns.graph.schedule import TaskOrder
from orchestration.patterns.graph.task import Task, TaskGraph
from orchestration.patterns.graph.task_executor import TaskExecutor
from orchestration.patterns.graph.validation import PlanLimits

__all__ = [
    "INPUTS",
    "STAGES",
    "InvalidPlan",
    "PlanForm",
    "PlanLimits",
    "Planner",
    "Task",
    "TaskExecutor",
    "TaskGraph",
    "TaskOrder",
    "TaskResult",
    "missing_note",
    "results_text",
    "timing_report",
    "title",
]
