"""Chooses the model of a step for which neither the caller nor the settings name one."""

from __future__ import annotations

from collections.abc import Sequence

from orchestration.trust.families import family_of
from orchestration.trust.trust import Trust

CLEAR_LEAD = 0.05
"""How much higher the expected share of right answers of a model with a short record must be for it to
replace the usual one. Models within this distance count as equally good."""


def most_trusted(trust: Trust, models: Sequence[str], usual: str, judged: Sequence[str] = ()) -> str | None:
    """Return the model of `models` that is expected to be right most often, or None if `models` is empty.

    The `usual` model, if it is among them, is kept unless the record of another one is long enough to prove
    that it is better, or its expected share is higher by `CLEAR_LEAD`.

    `judged` are the models whose work the chosen model will judge. Judges that users mostly disagree with are
    avoided if there is another. Among equally good models with proven records one of another family is
    preferred, because a judge favours its own family.
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
