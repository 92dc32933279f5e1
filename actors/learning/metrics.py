"""Figures of how `auto` chooses and of what users say, as Prometheus has them."""

from __future__ import annotations

from prometheus_client import Counter

CHOICES = Counter(
    "orchestra_auto_choices", "Ways to answer that auto chose, whichever model it was", ["kind", "arm"]
)
LESSONS_LOST = Counter(
    "orchestra_auto_lessons_lost", "What runs taught and was dropped, since the record could not be written"
)
DEBATE_FLIPS = Counter(
    "orchestra_debate_flips",
    "Debates whose later rounds had another leading answer than the first, by what became of it: taken or "
    "refused",
    ["kind", "outcome"],
)
DEBATE_FLIPS_JUDGED = Counter(
    "orchestra_debate_flips_judged",
    "Words of users on such debates, by their sign: those that are bad of one that was taken were flips to "
    "a wrong answer",
    ["kind", "outcome", "word"],
)
FEEDBACK = Counter(
    "orchestra_feedback", "Words of users that were counted, by their sign", ["kind", "pattern", "word"]
)
