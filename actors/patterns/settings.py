"""Settings of users' own patterns."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class PatternsSettings(BaseModel):
    """Patterns of your own. Agents and gateways both read these settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: tuple[Path, ...] = ()
    """Python files with patterns, or folders of such files. Installed packages need no path: their entry
    points in the group `orchestra.patterns` are loaded."""
