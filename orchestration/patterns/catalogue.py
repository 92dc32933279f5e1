"""The patterns by name. Each is a virtual model, `orchestra/<name>`."""

from __future__ import annotations

from orchestration.errors import UnknownModel
from orchestration.patterns.auto import auto
from orchestration.patterns.debate import debate
from orchestration.patterns.decompose import decompose
from orchestration.patterns.definition import Pattern
from orchestration.patterns.ensemble import ensemble
from orchestration.patterns.maestro import maestro
from orchestration.patterns.research import research
from orchestration.patterns.self_consistency import self_consistency
from orchestration.patterns.single import single

PREFIX = "orchestra/"

PATTERNS: dict[str, Pattern] = {
    each.name: each
    for each in (auto, debate, decompose, ensemble, maestro, research, self_consistency, single)
}


def pattern_name(model: str) -> str | None:
    """The pattern that a virtual model's name stands for, known or not; None for a real model's name."""
    return model[len(PREFIX) :] if model.startswith(PREFIX) else None


def virtual_models() -> list[str]:
    """The names a caller may use in place of a model's."""
    return [PREFIX + name for name in sorted(PATTERNS)]


def find_pattern(name: str) -> Pattern:
    """Raises `UnknownModel` naming the known ones."""
    pattern = PATTERNS.get(name)
    if pattern is None:
        raise UnknownModel.of(PREFIX + name, virtual_models())
    return pattern
