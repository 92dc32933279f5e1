"""How agents answer together: pure async functions over one capability, to perform steps."""

from orchestration.messages import Finish, TextDelta
from orchestration.patterns.base import GenerationRequest, StepAccepted, StepOptions, StepResult, ToolUse
from orchestration.patterns.budget_tracker import BudgetTracker
from orchestration.patterns.catalogue import (
    BUILT_IN,
    BrokenPlugin,
    Catalogue,
    NameTaken,
)
from orchestration.patterns.definition import Pattern, PatternSettings, pattern
from orchestration.patterns.executor import LocalTools, StepExecutor
from orchestration.patterns.limits import StepLimits
from orchestration.patterns.resume_filter import ResumeFilter
from orchestration.patterns.run_context import COORDINATOR, CRITIC, RunContext, RunFacts
from orchestration.patterns.run_report import RunReport
from orchestration.patterns.specialist_answer import perform_step
from orchestration.patterns.step_cache import StepCache, StepRecord
from orchestration.patterns.step_request import StepDone, StepRequest
from orchestration.patterns.step_runner import StepRunner

__all__ = [
    "BUILT_IN",
    "COORDINATOR",
    "CRITIC",
    "BrokenPlugin",
    "BudgetTracker",
    "Catalogue",
    "Finish",
    "GenerationRequest",
    "LocalTools",
    "NameTaken",
    "Pattern",
    "PatternSettings",
    "ResumeFilter",
    "RunContext",
    "RunFacts",
    "RunReport",
    "StepAccepted",
    "StepCache",
    "StepDone",
    "StepExecutor",
    "StepLimits",
    "StepOptions",
    "StepRecord",
    "StepRequest",
    "StepResult",
    "StepRunner",
    "TextDelta",
    "ToolUse",
    "pattern",
    "perform_step",
]
