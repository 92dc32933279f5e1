"""A step at work: what it has said so far, and the step that it becomes, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from orchestration.errors import ErrorBody
from orchestration.messages import FinishReason, Step, Usage
from orchestration.patterns.base import GenerationRequest, Outcome, Part


@dataclass(slots=True)
class PartialStep:
    """`read` says about how many tokens it reads; `outcome` is None until it has ended."""

    question: GenerationRequest
    read: Callable[[GenerationRequest], int]
    outcome: Outcome | None = None
    tokens: int = 0
    """Written so far, as they came."""
    _texts: list[str] = field(default_factory=list)
    _model: str = ""

    def take(self, part: Part) -> None:
        self._texts.append(part.text)
        self.tokens += part.tokens
        self._model = part.model or self._model

    @property
    def model(self) -> str:
        """Who writes it; '' until anybody says so."""
        return (self.outcome.model if self.outcome else "") or self._model or self.question.model or ""

    @property
    def usage(self) -> Usage:
        """An estimate before the end; nothing where nothing was written, since it may not have begun."""
        if self.outcome is not None:
            return self.outcome.usage
        if not self.tokens:
            return Usage()
        written = self.question.prefix_tokens + self.tokens
        return Usage(prompt_tokens=self.read(self.question), completion_tokens=written, estimated=True)

    def step(self, seconds: float, error: ErrorBody | None = None) -> Step:
        """As it ended, failed with `error`, or was stopped where it has no outcome."""
        reason: FinishReason = self.outcome.finish_reason if self.outcome else "cancelled"
        return Step(
            name=self.question.name,
            agent=self.question.agent,
            node=self.outcome.node if self.outcome else "",
            model=self.model,
            text="".join((self.question.prefix, *self._texts)),
            finish_reason=reason if error is None else "error",
            usage=self.usage,
            seconds=seconds,
            error=error,
        )
