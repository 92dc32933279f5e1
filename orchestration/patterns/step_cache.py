"""Records the finished steps of a run, so that they are not paid for twice.

A run that is taken up by another coordinator performs its pattern again from the start, and every step that
asks what was asked before is answered from the record. Steps that failed, or were stopped, are tried again:
of these only the tokens are recorded, which count for the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import count
from typing import Protocol

from pydantic_core import to_json

from orchestration.messages import Step, ToolResult, Wire
from orchestration.patterns.base import GenerationRequest, StepResult, ToolUse

DISCARDED = "{} (attempt {})"
"""The name under which the tokens of a step without an answer are recorded."""
_VERSION = 1
"""Part of every fingerprint: raise it when the meaning of a field changes, and old records match no more."""


class StepRecord(Wire):
    """A step as it is recorded: what was asked, as a fingerprint, what came of it, and how many seconds old
    the run was then. `result` is that of a tool."""

    fingerprint: str = ""
    step: Step
    run_s: float
    result: ToolResult | None = None

    @property
    def answer(self) -> StepResult:
        return StepResult.of(self.step)


class StepStore(Protocol):
    """A store of step records."""

    async def keep(self, record: StepRecord) -> StepRecord:
        """Record a step under its name. Returns the one that counts: where another coordinator was first
        with an answer to the same, that is its. Never fails: a run goes on without its records."""


def fingerprint_of(request: GenerationRequest | ToolUse) -> str:
    """Over everything that changes what comes of it. Its name is the key beside it, and what the budget
    leaves for it may differ when it is asked again."""
    parts: list[object] = [_VERSION, request.agent]
    if isinstance(request, ToolUse):
        parts += [request.tool, request.arguments]
    else:
        parts += [request.messages, request.sampling, request.guide, request.model, request.labels]
        parts += [request.extra] if request.extra else []
    return hashlib.sha256(to_json(parts)).hexdigest()


class StepCache:
    """The step records of one run. `known` are those of earlier coordinators, by step name; without a `store`
    no more are recorded.

    The step whose text goes to the caller is usually the last one. It is recorded only when another step
    follows, so that a run of one step records nothing.
    """

    def __init__(self, store: StepStore | None = None, known: Mapping[str, StepRecord] | None = None) -> None:
        self._store = store
        self._known = known or {}
        self._last: tuple[GenerationRequest | ToolUse, StepRecord] | None = None
        self._discarded = [record.step for record in self._known.values() if record.step.discarded]
        self._new_discarded: list[StepRecord] = []

    def take_discarded(self) -> list[Step]:
        """Steps of earlier coordinators that used tokens and gave no answer, once."""
        steps, self._discarded = self._discarded, []
        return steps

    def discard(self, step: Step, run_s: float) -> None:
        """A step failed or was stopped: what it used is recorded by `next`."""
        if step.usage.prompt_tokens or step.usage.completion_tokens:
            names = (DISCARDED.format(step.name, number) for number in count(1))
            name = next(name for name in names if name not in self._known)
            discarded = step.model_copy(update={"name": name, "text": ""})
            self._new_discarded.append(StepRecord(step=discarded, run_s=run_s))

    def find(self, request: GenerationRequest | ToolUse) -> StepRecord | None:
        """The record of a step with the same request."""
        known = self._known.get(request.name)
        return known if known is not None and known.fingerprint == fingerprint_of(request) else None

    def records(self, prefix: str) -> tuple[StepRecord, ...]:
        """The records with an answer whose names begin so, for an agent that does these steps."""
        known = self._known.items()
        return tuple(
            record for name, record in known if name.startswith(prefix) and not record.step.discarded
        )

    async def keep_record(self, record: StepRecord) -> None:
        """Record a step that an agent did."""
        if self._store is not None:
            await self._store.keep(record)

    async def keep(
        self, request: GenerationRequest | ToolUse, record: StepRecord, *, last: bool
    ) -> StepRecord:
        """Record a step before its result is used; the `last` one only when another begins. Returns the
        record that counts."""
        if last:
            self._last = (request, record)
            return record
        return await self._keep(request, record)

    async def next(self) -> None:
        """Another step begins, or the run ends here and may be taken up elsewhere."""
        discarded, self._new_discarded = self._new_discarded, []
        for record in discarded:
            if self._store is not None:
                await self._store.keep(record)
        if self._last is not None:
            (request, record), self._last = self._last, None
            await self._keep(request, record)

    async def _keep(self, request: GenerationRequest | ToolUse, record: StepRecord) -> StepRecord:
        if self._store is None:
            return record
        return await self._store.keep(record.model_copy(update={"fingerprint": fingerprint_of(request)}))
