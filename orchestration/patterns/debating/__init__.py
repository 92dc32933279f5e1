"""Debates: debaters that answer, criticise each other and improve, and a judge that ends it."""

from orchestration.patterns.debating.debaters import MAX_DEBATERS, Debater, choose_debaters
from orchestration.patterns.debating.judge import Judge
from orchestration.patterns.debating.rounds import DebateRounds, SharedView

__all__ = ["MAX_DEBATERS", "DebateRounds", "Debater", "Judge", "SharedView", "choose_debaters"]
