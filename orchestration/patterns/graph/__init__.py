"""A question as a graph of subtasks: planned, checked, put in order and carried out."""

from orchestration.patterns.graph.planner import Planner
from orchestration.patterns.graph.report import account, partial
from orchestration.patterns.graph.results import Result, passed_on, title
from orchestration.patterns.graph.schedule import Order
from orchestration.patterns.graph.task import Graph, Task
from orchestration.patterns.graph.task_executor import Crew
from orchestration.patterns.graph.validation import Bounds

__all__ = [
    "Bounds",
    "Crew",
    "Graph",
    "Order",
    "Planner",
    "Result",
    "Task",
    "account",
    "partial",
    "passed_on",
    "title",
]
