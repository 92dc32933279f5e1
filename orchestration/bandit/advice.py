"""Who knows how earlier runs went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestration.bandit.bandit import ArmChoice
from orchestration.errors import OrchestraError
from orchestration.messages import Run
from orchestration.query_analysis.analysis import Analysis
from orchestration.query_analysis.profiles import Arm


class Advisor(Protocol):
    """Chooses for `auto`."""

    async def choose(self, run: Run, analysis: Analysis, arms: Sequence[Arm]) -> ArmChoice:
        """One of `arms`; of the same run always the same, whoever performs it."""

    def failed(self, error: OrchestraError) -> None:
        """What was chosen came to nothing."""
