"""A step in progress: its text so far, and the finished step that it becomes, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from orchestration.messages import ErrorBody, Finish, FinishReason, Step, TextDelta, Usage
from orchestration.patterns.base import GenerationRequest


@dataclass(slots=True)
class PartialStep:
    """`read` says about how many tokens it reads; `finish` is None until it has ended."""

    question: GenerationRequest
    read: Callable[[GenerationRequest], int]
    finish: Finish | None = None
    tokens: int = 0
    """Written so far, as they came."""
    accepted_by: str = ""
    """The model that was chosen for it."""
    _texts: list[str] = field(default_factory=list)

    def take(self, delta: TextDelta) -> None:
        self._texts.append(delta.text)
        self.tokens += delta.tokens

    @property
    def model(self) -> str:
        """The model that writes it; '' until that is known."""
        return (self.finish.model if self.finish else "") or self.accepted_by or self.question.model or ""

    @property
    def usage(self) -> Usage:
        """An estimate before the end; nothing where nothing was written, since it may not have begun."""
        if self.finish is not None:
            return self.finish.usage
        if not self.tokens:
            return Usage()
        written = self.question.prefix_tokens + self.tokens
        return Usage(prompt_tokens=self.read(self.question), completion_tokens=written, estimated=True)

    def step(self, seconds: float, error: ErrorBody | None = None) -> Step:
        """As it ended, failed with `error`, or was stopped where it has no finish."""
        reason: FinishReason = self.finish.reason if self.finish else "cancelled"
        return Step(
            name=self.question.name,
            agent=self.question.agent,
            node=self.finish.node if self.finish else "",
            model=self.model,
            text="".join((self.question.prefix, *self._texts)),
            finish_reason=reason if error is None else "error",
            usage=self.usage,
            seconds=seconds,
            error=error,
        )
