"""The finished steps of a run that are recorded, so that nobody pays for them twice.

A run that is taken up by another coordinator performs its pattern again from the start, and every step that
asks what was asked before is answered from the record. Steps that failed are not recorded: they are tried
again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

from pydantic_core import to_json

from orchestration.messages import Step, ToolResult, Wire
from orchestration.patterns.base import Answer, Question, Use

_VERSION = 1
"""Part of every fingerprint: raise it when the meaning of a field changes, and old records match no more."""


class Kept(Wire):
    """A step as it is recorded: what was asked, as a fingerprint, what came of it, and how many seconds old
    the run was then. `result` is that of a tool."""

    asked: str = ""
    step: Step
    run_s: float
    result: ToolResult | None = None

    @property
    def answer(self) -> Answer:
        step = self.step
        return Answer(
            text=step.text,
            finish_reason=step.finish_reason,
            usage=step.usage,
            node=step.node,
            model=step.model,
            seconds=step.seconds,
        )


class Keeper(Protocol):
    """Where steps are recorded."""

    async def keep(self, kept: Kept) -> Kept:
        """Record a step under its name. Returns the one that counts: where another coordinator was first
        with an answer to the same, that is its. Never fails: a run goes on without its records."""


def fingerprint(asked: Question | Use) -> str:
    """Over everything that changes what comes of it. Its name is the key beside it, and what the budget
    leaves for it may differ when it is asked again."""
    said: list[object] = [_VERSION, asked.agent]
    if isinstance(asked, Use):
        said += [asked.tool, asked.arguments]
    else:
        said += [asked.messages, asked.sampling, asked.guide, asked.model, asked.labels]
        said += [asked.extra] if asked.extra else []
    return hashlib.sha256(to_json(said)).hexdigest()


class Recall:
    """Of one run. `known` are the steps by name that were recorded before; without a `keeper` no more are.

    A step whose text the caller gets is the run's last, mostly, and what was said of it is with the caller:
    it is recorded only when another step follows, so that a run of one step records nothing.
    """

    def __init__(self, keeper: Keeper | None = None, known: Mapping[str, Kept] | None = None) -> None:
        self._keeper = keeper
        self._known = known or {}
        self._last: tuple[Question | Use, Kept] | None = None

    def find(self, asked: Question | Use) -> Kept | None:
        """What was recorded of this very question, or use."""
        known = self._known.get(asked.name)
        return known if known is not None and known.asked == fingerprint(asked) else None

    async def keep(self, asked: Question | Use, kept: Kept, *, last: bool) -> Kept:
        """Record a step before anybody sees it, or when the `next` one begins. Returns the one that
        counts."""
        if last:
            self._last = (asked, kept)
            return kept
        return await self._keep(asked, kept)

    async def next(self) -> None:
        """Another step begins."""
        if self._last is not None:
            (asked, kept), self._last = self._last, None
            await self._keep(asked, kept)

    async def _keep(self, asked: Question | Use, kept: Kept) -> Kept:
        if self._keeper is None:
            return kept
        return await self._keeper.keep(kept.model_copy(update={"asked": fingerprint(asked)}))
