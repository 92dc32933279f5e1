"""`orchestra/auto`: chooses the pattern by what the question looks like."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from orchestration.messages import Run
from orchestration.patterns.base import Answer, Part, Pattern
from orchestration.patterns.clipping import estimate_tokens
from orchestration.patterns.conversation import last_question
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


async def auto(run: Run, stage: Stage) -> AsyncGenerator[Part | Answer, None]:
    """`single` for a short plain question, `maestro` otherwise.

    A rule on the words of the last question, not an analysis by a model: it costs nothing, knows
    English only, and sends what it does not recognise as work for several to one model.
    """
    name, chosen = choose(run)
    await stage.progress(f"auto chose {name}")
    async with aclosing(chosen(run, stage)) as items:
        async for item in items:
            yield item


def choose(run: Run) -> tuple[str, Pattern]:
    """The pattern for a run, and its name. Raises `InvalidRequest` when nothing is asked."""
    question = run.messages[last_question(run.messages)].content
    if run.guide is not None:  # a fixed form of answer leaves a team little to add
        return "single", single
    several = question.count("?") > 1 or len(_LIST.findall(question)) > 1
    if several or _TEAMWORK.search(question) or estimate_tokens(question) > PLAIN_TOKENS:
        return "maestro", maestro
    return "single", single
