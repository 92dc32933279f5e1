"""Virtual models: a model named `orchestra/NAME` is the pattern NAME."""

from __future__ import annotations

PATTERN_PREFIX = "orchestra/"


def pattern_name(model: str) -> str | None:
    """The pattern that a virtual model's name stands for, known or not; None for a real model's name."""
    return model[len(PATTERN_PREFIX) :] if model.startswith(PATTERN_PREFIX) else None
