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
from orchestration.patterns.stage import COORDINATOR, CRITIC, Stage

__all__ = [
    "COORDINATOR",
    "CRITIC",
    "PATTERNS",
    "PREFIX",
    "Answer",
    "Ask",
    "Limits",
    "Outcome",
    "Part",
    "Pattern",
    "PatternSettings",
    "Question",
    "Stage",
    "Use",
    "find_pattern",
    "pattern",
    "pattern_name",
    "virtual_models",
]
