"""Where patterns of one's own are."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class PatternsSettings(BaseModel):
    """Read by agents and gateways, which both need them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: tuple[Path, ...] = ()
    """Python files that have patterns, or folders of such files. Installed packages need not be named: their
    entry points in the group `orchestra.patterns` are."""
