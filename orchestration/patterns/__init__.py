"""How agents answer together: pure async functions over one capability, to ask an agent."""

from orchestration.messages import Finish, TextDelta
from orchestration.patterns.base import GenerationRequest, StepAccepted, StepExecutor, StepResult, ToolUse
from orchestration.patterns.catalogue import (
    BUILT_IN,
    BrokenPlugin,
    Catalogue,
    NameTaken,
)
from orchestration.patterns.definition import Pattern, PatternSettings, pattern
from orchestration.patterns.limits import StepLimits
from orchestration.patterns.resume_filter import ResumeFilter
from orchestration.patterns.run_context import COORDINATOR, CRITIC, RunContext
from orchestration.patterns.step_cache import StepCache, StepRecord

__all__ = [
    "BUILT_IN",
    "COORDINATOR",
    "CRITIC",
    "BrokenPlugin",
    "Catalogue",
    "Finish",
    "GenerationRequest",
    "NameTaken",
    "Pattern",
    "PatternSettings",
    "ResumeFilter",
    "RunContext",
    "StepAccepted",
    "StepCache",
    "StepExecutor",
    "StepLimits",
    "StepRecord",
    "StepResult",
    "TextDelta",
    "ToolUse",
    "pattern",
]
