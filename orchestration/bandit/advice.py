"""The interface by which `auto` uses the records of earlier runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestration.bandit.bandit import ArmChoice
from orchestration.errors import OrchestraError
from orchestration.messages import Run
from orchestration.query_analysis.analysis import Analysis
from orchestration.query_analysis.profiles import Arm


class Advisor(Protocol):
    """Chooses an arm for `auto`."""

    async def choose(self, run: Run, analysis: Analysis, arms: Sequence[Arm]) -> ArmChoice:
        """Return one of `arms`. A run always gets the same arm, also when another coordinator resumes it."""

    def failed(self, error: OrchestraError) -> None:
        """Record that the chosen arm gave no answer."""
