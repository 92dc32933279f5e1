"""Which model does a step that neither a caller nor the settings give to one."""

from __future__ import annotations

from collections.abc import Sequence

from orchestration.trust.families import family_of
from orchestration.trust.trust import Trust

CLEAR_LEAD = 0.05
"""Of the share of right answers: by so much a model has to be ahead of the usual one where its record at such
questions is short. Models within this of each other are as good."""


def most_trusted(trust: Trust, models: Sequence[str], usual: str, judged: Sequence[str] = ()) -> str | None:
    """The one of `models` that is right most often. It is the `usual` one, where that is among them, unless a
    record says otherwise or what is thought of another beforehand is clearly better. None of none.

    `judged` are models whose work is to be judged. A judge with which users disagree is left out, where there
    is another; where two are as good, by their records, one of another family is taken, since a judge prefers
    its own.
    """
    if judged:
        models = [name for name in models if not trust.misjudges(name)] or models
    if not models:
        return None

    def share(model: str) -> float:
        return trust.accuracy(model).mean

    ranked = sorted(models, key=lambda name: (-round(share(name), 9), name != usual, name))
    best = ranked[0]
    if usual in ranked:
        lead = share(best) - share(usual)
        if lead < CLEAR_LEAD and not trust.is_proven(best):
            best = usual
    families = {family_of(name) for name in judged}
    if family_of(best) not in families:
        return best
    near = (name for name in ranked if share(best) - share(name) <= CLEAR_LEAD and trust.is_proven(name))
    return next((name for name in near if family_of(name) not in families), best)
