"""Figures of how `auto` chooses and of what users say, as Prometheus has them."""

from __future__ import annotations

from prometheus_client import Counter

CHOICES = Counter("orchestra_auto_choices", "Ways to answer that auto chose", ["kind", "arm"])
LESSONS_LOST = Counter(
    "orchestra_auto_lessons_lost", "What runs taught and was dropped, since the record could not be written"
)
FEEDBACK = Counter(
    "orchestra_feedback", "Words of users that were counted, by their sign", ["kind", "pattern", "word"]
)
