"""How agents answer together: pure async functions over one capability, to ask an agent."""

from orchestration.patterns.base import Answer, Ask, Limits, Outcome, Part, Question, Use
from orchestration.patterns.catalogue import (
    PATTERNS,
    PREFIX,
    find_pattern,
    pattern_name,
    virtual_models,
)
from orchestration.patterns.definition import Pattern, PatternSettings, pattern
from orchestration.patterns.outlet import Outlet
from orchestration.patterns.recall import Kept, Recall
from orchestration.patterns.stage import COORDINATOR, CRITIC, Stage

__all__ = [
    "COORDINATOR",
    "CRITIC",
    "PATTERNS",
    "PREFIX",
    "Answer",
    "Ask",
    "Kept",
    "Limits",
    "Outcome",
    "Outlet",
    "Part",
    "Pattern",
    "PatternSettings",
    "Question",
    "Recall",
    "Stage",
    "Use",
    "find_pattern",
    "pattern",
    "pattern_name",
    "virtual_models",
]
