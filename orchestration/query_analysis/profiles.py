"""Arms (ways to answer) for each kind of question: sampling parameters, patterns and priors.

An arm is a pattern with a profile; if several models are available, each model alone is an arm. Its prior is
the expected share of good answers before any run was judged; the records of runs are added to it (`bandit`).
The priors give easy questions and small talk to one model, and avoid patterns that are worse than one model
with the same tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from orchestration.messages import Sampling
from orchestration.query_analysis.analysis import Analysis, Level
from orchestration.query_analysis.features import Kind

SINGLE, ENSEMBLE = "single", "ensemble"
MIN_TOKENS, LENGTH_FACTOR = 192, 4
"""Minimum `max_tokens` of an answer, and the factor on its expected length. A cut answer is worse than a long
one, and three in ten expectations are wrong by more than a factor of 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Sampling parameters of an answer; parameters of the caller override them."""

    name: str
    sampling: Sampling

    def sampling_for(self, analysis: Analysis, max_tokens: int) -> Sampling:
        """Return the sampling for a question whose answer may have at most `max_tokens`."""
        wanted = max(MIN_TOKENS, LENGTH_FACTOR * analysis.tokens)
        longest = self.sampling.max_tokens or wanted
        return self.sampling.model_copy(update={"max_tokens": min(wanted, longest, max_tokens)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The models that may answer."""

    models: tuple[str, ...]
    """The models that may answer alone, the most trusted first."""
    panel: tuple[str, ...] = ()
    """The models that would vote."""
    tokens: Mapping[str, float] = field(default_factory=dict)
    """The usual tokens of an answer by model, its question included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to answer."""

    profile: Profile
    pattern: str
    prior: float
    """The expected share of good answers."""
    model: str = ""
    """The model that answers alone; its record says how good the arm is. '' if the pattern chooses."""
    members: tuple[str, ...] = ()
    """The models that the pattern chooses from; the belief about the arm starts from their records."""
    tokens: float = 0.0
    """The expected tokens of a run before any was measured."""

    @property
    def strategy(self) -> str:
        """The profile and pattern, without the model."""
        return f"{self.profile.name}/{self.pattern}"

    @property
    def name(self) -> str:
        return f"{self.strategy}/{self.model}" if self.model else self.strategy


def _profile(name: str, temperature: float, top_p: float, max_tokens: int, **penalties: float) -> Profile:
    parameters = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, **penalties}
    return Profile(name=name, sampling=Sampling.model_validate(parameters))


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
"""Profiles by kind of question; the best known comes first."""

PRECISE = PROFILES["factual"][0]
"""The profile of chores, whatever the conversation is about."""

SINGLE_PRIOR = 0.70
"""The prior of one model with the first profile."""
TEAM_PRIOR = 0.64
"""The prior of a team that is worth a try."""
_LATER_PROFILE_PRIOR = 0.66
"""The prior of one model with another profile."""

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
"""Priors of the patterns other than `single` that are tried, by kind and level.

None is above that of one model: in `make eval` with SmolLM2-135M, no pattern was shown to be right more often
than a single answer with a twentieth of the tokens. For other models, occasional tries and the judgements of
users and critics decide."""


GREEDY_KINDS: frozenset[Kind] = frozenset(("factual", "reasoning", "code"))
"""Kinds whose first profile is greedy: an easy question of these has one right answer, which sampling hits
less often."""

UNKNOWN_PRIOR = 0.62
"""The prior of a pattern that the settings name and that has no prior here."""


COMPARABLE_KINDS: frozenset[Kind] = frozenset(("factual", "reasoning"))
"""Kinds for which the answers of models can be compared, so several models may be asked at any level."""

CALLS_PER_RUN = {"self-consistency": 4, "debate": 9, "maestro": 7, "decompose": 7}
"""About how many answers a run of a pattern writes."""


def arms(
    analysis: Analysis,
    patterns: Collection[str],
    named: Collection[str] = (),
    candidates: Candidates | None = None,
) -> tuple[Arm, ...]:
    """Return the arms for a question, the best prior first. Only `patterns` are available; those in `named`
    are offered for every kind and level except small talk. An easy question with one right answer goes to one
    model with greedy sampling, or to several `candidates` if there is more than one."""
    if candidates is not None and len(candidates.models) > 1:
        return _arms_of_candidates(candidates, analysis, patterns, named)
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


def _arms_of_candidates(
    candidates: Candidates, analysis: Analysis, patterns: Collection[str], named: Collection[str]
) -> tuple[Arm, ...]:
    """Return an arm for each model alone, and the teams."""
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
            expected = CALLS_PER_RUN.get(name, 1) * tokens.get(models[0], 0.0)
            expected = sum(tokens.get(each, 0.0) for each in members) if name == ENSEMBLE else expected
            found.append(Arm(profile=profile, pattern=name, prior=prior, members=members, tokens=expected))
    return tuple(sorted(found, key=lambda arm: -arm.prior))


def _teams(analysis: Analysis, named: Collection[str]) -> dict[str, float]:
    teams = dict(TEAMS[analysis.kind].get(analysis.level, {}))
    if analysis.kind != "conversation":
        teams |= {name: UNKNOWN_PRIOR for name in named if name not in teams and name != SINGLE}
    return teams
