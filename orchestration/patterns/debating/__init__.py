"""Debates: debaters who answer, criticise each other and improve, and a judge who ends it."""

from orchestration.patterns.debating.debaters import MOST, Debater, panel
from orchestration.patterns.debating.judge import Judge
from orchestration.patterns.debating.rounds import Floor, Shown

__all__ = ["MOST", "Debater", "Floor", "Judge", "Shown", "panel"]
