"""How agents answer together: pure async functions over one capability, to ask an agent."""

from orchestration.patterns.base import Answer, Ask, Outcome, Part, Question, Use
from orchestration.patterns.catalogue import (
    BUILT_IN,
    BrokenPlugin,
    Catalogue,
    NameTaken,
)
from orchestration.patterns.definition import Pattern, PatternSettings, pattern
from orchestration.patterns.limits import StepLimits
from orchestration.patterns.resume_filter import Outlet
from orchestration.patterns.run_context import COORDINATOR, CRITIC, Stage
from orchestration.patterns.step_cache import Kept, Recall

__all__ = [
    "BUILT_IN",
    "COORDINATOR",
    "CRITIC",
    "Answer",
    "Ask",
    "BrokenPlugin",
    "Catalogue",
    "Kept",
    "NameTaken",
    "Outcome",
    "Outlet",
    "Part",
    "Pattern",
    "PatternSettings",
    "Question",
    "Recall",
    "Stage",
    "StepLimits",
    "Use",
    "pattern",
]
