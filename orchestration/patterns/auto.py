"""`orchestra/auto`: chooses the pattern by what the question looks like."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from orchestration.messages import Run
from orchestration.patterns.base import Answer, Part
from orchestration.patterns.clipping import estimate_tokens
from orchestration.patterns.conversation import last_question
from orchestration.patterns.definition import Pattern, PatternSettings, pattern
from orchestration.patterns.maestro import maestro
from orchestration.patterns.single import single
from orchestration.patterns.stage import Stage

PLAIN_TOKENS = 60
_TEAMWORK = re.compile(
    r"\b(compare|comparison|contrast|versus|vs|pros and cons|trade-?offs?|advantages|step by step|design|"
    r"plan|strategy|analy[sz]e|evaluate|assess|critique|review|in detail|essay|report|research)\b",
    re.IGNORECASE,
)
_LIST = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)


@pattern("auto")
async def auto(run: Run, stage: Stage, settings: PatternSettings) -> AsyncGenerator[Part | Answer, None]:
    """`single` for a short plain question, `maestro` otherwise.

    A rule on the words of the last question, not an analysis by a model: it costs nothing, knows
    English only, and sends what it does not recognise as work for several to one model.
    """
    chosen = choose(run)
    await stage.progress(f"auto chose {chosen.name}")
    async with aclosing(chosen.inside(run, stage)) as items:
        async for item in items:
            yield item


def choose(run: Run) -> Pattern:
    """The pattern for a run. Raises `InvalidRequest` when nothing is asked."""
    question = run.messages[last_question(run.messages)].content
    if run.guide is not None:  # a fixed form of answer leaves a team little to add
        return single
    several = question.count("?") > 1 or len(_LIST.findall(question)) > 1
    if several or _TEAMWORK.search(question) or estimate_tokens(question) > PLAIN_TOKENS:
        return maestro
    return single
