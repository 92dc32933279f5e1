"""How each kind of question is answered: parameters, patterns, and what is thought of them beforehand.

An arm is a pattern under a profile; where several models live, each alone is one. Its prior is the share of
answers thought to be good, before any run has been judged; what runs bring goes over it (`bandit`). The
priors send easy questions and small talk to one model, and keep away from patterns that lose against one
model at equal tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from orchestration.messages import Sampling
from orchestration.query_analysis.analysis import Analysis, Level
from orchestration.query_analysis.features import Kind

SINGLE, ENSEMBLE = "single", "ensemble"
MIN_TOKENS, LENGTH_FACTOR = 192, 4
"""Tokens that every answer may have, and times the expected length: an answer that is cut off is worse than a
long one, and three in ten expectations are wrong by more than a factor of 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Parameters of the model's answer; a caller's own go over them."""

    name: str
    sampling: Sampling

    def sampled(self, analysis: Analysis, most_tokens: int) -> Sampling:
        """For a question whose answer may have `most_tokens` at most."""
        wanted = max(MIN_TOKENS, LENGTH_FACTOR * analysis.tokens)
        longest = self.sampling.max_tokens or wanted
        return self.sampling.model_copy(update={"max_tokens": min(wanted, longest, most_tokens)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The models that may answer, the most trusted first; those that would vote; and the tokens that an
    answer of each has mostly, its question included."""

    models: tuple[str, ...]
    panel: tuple[str, ...] = ()
    tokens: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to answer; `prior` is the share of good answers expected of it.

    `model` answers alone, and how far it is trusted says how good the arm is; '' where the pattern chooses,
    among `members`, whose trust the arm begins from. `tokens` are expected of a run while none was seen."""

    profile: Profile
    pattern: str
    prior: float
    model: str = ""
    members: tuple[str, ...] = ()
    tokens: float = 0.0

    @property
    def way(self) -> str:
        """Whichever model it is."""
        return f"{self.profile.name}/{self.pattern}"

    @property
    def name(self) -> str:
        return f"{self.way}/{self.model}" if self.model else self.way


def _profile(name: str, temperature: float, top_p: float, max_tokens: int, **penalties: float) -> Profile:
    said = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, **penalties}
    return Profile(name=name, sampling=Sampling.model_validate(said))


PROFILES: dict[Kind, tuple[Profile, ...]] = {
    "factual": (
        _profile("precise", 0.0, 1.0, 512, repetition_penalty=1.05),
        _profile("plain", 0.4, 0.9, 512, repetition_penalty=1.05),
    ),
    "reasoning": (
        _profile("strict", 0.0, 1.0, 768),
        _profile("plain", 0.3, 0.9, 768),
    ),
    "creative": (
        _profile("lively", 0.9, 0.95, 1024, presence_penalty=0.3, frequency_penalty=0.2),
        _profile("bold", 1.1, 0.97, 1024, presence_penalty=0.4, frequency_penalty=0.3),
    ),
    "code": (
        _profile("strict", 0.0, 1.0, 1024),
        _profile("plain", 0.2, 0.9, 1024),
    ),
    "conversation": (
        _profile("warm", 0.7, 0.9, 192, presence_penalty=0.2),
        _profile("plain", 0.4, 0.9, 192),
    ),
}
"""Best known first."""

PRECISE = PROFILES["factual"][0]
"""For chores too, whatever the talk is about that they are for."""

SINGLE_PRIOR = 0.70
"""Of one model, under the best known profile."""
TEAM_PRIOR = 0.64
"""Of a team that is worth a try."""
_LATER_PROFILE_PRIOR = 0.66
"""Of the profiles that come after the first."""

TEAMS: dict[Kind, dict[Level, dict[str, float]]] = {
    "factual": {"hard": {"maestro": 0.60, "decompose": 0.55}},
    "reasoning": {
        "medium": {"self-consistency": 0.64, "ensemble": 0.64, "maestro": 0.55},
        "hard": {"maestro": 0.62, "ensemble": 0.64, "debate": 0.64, "decompose": 0.55},
    },
    "creative": {"hard": {"maestro": 0.60}},
    "code": {"hard": {"maestro": 0.58, "decompose": 0.58}},
    "conversation": {},
}
"""The share of good answers expected of a pattern other than `single`, where one is tried at all.

None begins above one model: by `make eval`, with SmolLM2-135M, no pattern was shown to be right more often
than a single answer at a twentieth of the tokens. What is tried now and then, and what users and critics say
of it, decides with other models."""


GREEDY_KINDS: frozenset[Kind] = frozenset(("factual", "reasoning", "code"))
"""Kinds whose first profile is greedy: an easy question of these has one right answer, and a sample of it is
right less often."""

UNKNOWN_PRIOR = 0.62
"""The share expected of a pattern that somebody names and nothing is known of."""


COMPARABLE_KINDS: frozenset[Kind] = frozenset(("factual", "reasoning"))
"""Kinds of which models' answers can be compared: easy or hard, several models may be asked."""

CALLS_PER_RUN = {"self-consistency": 4, "debate": 9, "maestro": 7, "decompose": 7}
"""Answers that are written in a run of a pattern, about."""


def arms(
    analysis: Analysis,
    patterns: Collection[str],
    named: Collection[str] = (),
    candidates: Candidates | None = None,
) -> tuple[Arm, ...]:
    """The ways to answer a question for which `patterns` can be had, the one thought best first. Those
    `named` are offered for every kind and level but small talk. An easy question with one right answer is
    answered by one model, greedily, or by several `candidates` where more than one lives."""
    if candidates is not None and len(candidates.models) > 1:
        return _among(candidates, analysis, patterns, named)
    first, *others = PROFILES[analysis.kind]
    if analysis.level == "easy" and analysis.kind in GREEDY_KINDS:
        others = []
    found = [Arm(profile=first, pattern=SINGLE, prior=SINGLE_PRIOR)]
    found += [Arm(profile=each, pattern=SINGLE, prior=_LATER_PROFILE_PRIOR) for each in others]
    found += [
        Arm(profile=first, pattern=name, prior=prior)
        for name, prior in _teams(analysis, named).items()
        if name in patterns
    ]
    return tuple(sorted(found, key=lambda arm: -arm.prior))


def _among(
    candidates: Candidates, analysis: Analysis, patterns: Collection[str], named: Collection[str]
) -> tuple[Arm, ...]:
    """Each of several models alone, and the teams."""
    models, tokens = candidates.models, candidates.tokens
    profile = PROFILES[analysis.kind][0]
    found = [
        Arm(profile=profile, pattern=SINGLE, prior=SINGLE_PRIOR, model=name, tokens=tokens.get(name, 0.0))
        for name in models
    ]
    teams = _teams(analysis, named)
    if len(candidates.panel) > 1 and analysis.kind in COMPARABLE_KINDS:
        teams = {ENSEMBLE: TEAM_PRIOR, **teams}
    elif len(candidates.panel) < 2:
        teams.pop(ENSEMBLE, None)
    for name, prior in teams.items():
        if name in patterns:
            members = candidates.panel if name == ENSEMBLE else models
            most = CALLS_PER_RUN.get(name, 1) * tokens.get(models[0], 0.0)
            most = sum(tokens.get(each, 0.0) for each in members) if name == ENSEMBLE else most
            found.append(Arm(profile=profile, pattern=name, prior=prior, members=members, tokens=most))
    return tuple(sorted(found, key=lambda arm: -arm.prior))


def _teams(analysis: Analysis, named: Collection[str]) -> dict[str, float]:
    teams = dict(TEAMS[analysis.kind].get(analysis.level, {}))
    if analysis.kind != "conversation":
        teams |= {name: UNKNOWN_PRIOR for name in named if name not in teams and name != SINGLE}
    return teams
