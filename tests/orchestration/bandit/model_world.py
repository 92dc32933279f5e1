"""Models that are right with known shares, votes among them, and runs of `auto` that learn from these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from orchestration.bandit.bandit import choose, run_fraction
from orchestration.query_analysis.analysis import Analysis
from orchestration.query_analysis.profiles import Arm, Candidates, arms
from orchestration.trust.observation import Observation, VoterAnswer
from orchestration.trust.panel import choose_panel
from orchestration.trust.records import KindRecord
from orchestration.trust.trust import Trust

QUESTION = Analysis(kind="reasoning", confidence=0.9, difficulty=0.1, tokens=150)
PATTERNS = ("single", "ensemble", "self-consistency", "maestro", "debate", "decompose")
COMMON_ERROR = 0.35
EXPLORE = 0.05
TOKENS = 400.0


@dataclass
class World:
    """`shares` says how often each model is right, `prior` what is thought of it. `says` gives a user's
    word on a run's answer, by the number of the run and whether it was right; None for no word."""

    shares: dict[str, float]
    says: Callable[[int, bool], float | None] = lambda run, right: float(right)
    prior: Callable[[str], float] = lambda name: 0.6
    seed: int = 0
    record: KindRecord = field(default_factory=KindRecord)
    runs: list[tuple[Arm, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draws = np.random.default_rng(self.seed)

    def trust(self, *, audit: bool = False) -> Trust:
        record = self.record
        return Trust(record.models, {}, record.vote_vs_best, self.prior, learns=True, audit=audit)

    @property
    def first(self) -> str:
        """The most trusted model."""
        return self.trust().best(list(self.shares)) or ""

    def go(self, runs: int) -> World:
        for _ in range(runs):
            self._run()
        return self

    def taken(self, since: int) -> dict[str, float]:
        """The shares of models, and of patterns of several, in the runs since that one."""
        names = [arm.model or arm.pattern for arm, _ in self.runs[since:]]
        return {name: names.count(name) / len(names) for name in names}

    def quality(self, since: int) -> float:
        """The share of right answers that is expected of what was chosen since that run; of a panel, what
        came of it."""
        found = [self.shares.get(arm.model, float(right)) for arm, right in self.runs[since:]]
        return sum(found) / len(found)

    def _run(self) -> None:
        number = len(self.runs)
        run = f"{self.seed}.{number}"
        trust = self.trust(audit=run_fraction(run) < EXPLORE)
        ranked = sorted(self.shares, key=lambda name: (-trust.accuracy(name).mean, name))
        panel = choose_panel(trust, ranked, 8, lambda name: TOKENS)
        lengths = dict.fromkeys(ranked, TOKENS)
        offered = Candidates(models=tuple(ranked[:8]), panel=tuple(panel), tokens=lengths)
        ways = arms(QUESTION, PATTERNS, (), offered)
        chosen = choose(ways, self.record, run, explore=EXPLORE, trust=trust)
        arm, answers = chosen.arm, self._answers()
        asked = [arm.model] if arm.model else panel if arm.pattern == "ensemble" else ranked[:1]
        groups = _voted(trust, {name: answers[name] for name in (ranked if chosen.audit else asked)})
        right = next(name for name in groups if groups[name] == 0)
        is_right = answers[right] == 0
        heard = tuple(VoterAnswer(model=name, group=group) for name, group in groups.items())
        tokens = TOKENS * len(heard)
        self._learn(Observation(answers=heard, arm=arm.name, tokens=tokens, seconds=1), trust)
        word = self.says(number, is_right)
        if word is not None:
            caller = f"user {number % 9}"
            seen = Observation(source="user", quality=word, answers=heard, arm=arm.name, caller=caller)
            self._learn(seen, self.trust())
        self.runs.append((arm, is_right))

    def _learn(self, seen: Observation, trust: Trust) -> None:
        self.record = self.record.after(seen, trust)

    def _answers(self) -> dict[str, int]:
        """0 is right, 1 the error that others make too, and others are each model's own."""
        return {
            name: 0 if self.draws.random() < share else 1 if self.draws.random() < COMMON_ERROR else 2 + at
            for at, (name, share) in enumerate(self.shares.items())
        }


def _voted(trust: Trust, answers: Mapping[str, int]) -> dict[str, int]:
    """The group of each model's answer, that of the vote's first."""
    parties = {
        answer: [name for name in answers if answers[name] == answer] for answer in set(answers.values())
    }
    order = sorted(parties, key=lambda answer: -trust.group_weight(parties[answer]))
    return {name: order.index(answer) for name, answer in answers.items()}
