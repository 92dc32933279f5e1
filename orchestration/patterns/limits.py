"""The tokens that each step of a pattern may read and write, by the context of the models that take part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

MIN_CONTEXT = 2048
"""The context that the defaults fit, in tokens; also assumed where no model is known."""
UNKNOWN_CONTEXT = 8192
"""The context of a model whose server does not report it; models in use today have that or more."""
AROUND_TOKENS = 240
"""Tokens reserved for a role's prompt and our instructions."""

TASK_CHARS, FIX_CHARS, ANALYSIS_CHARS, CRITIQUE_CHARS = 120, 90, 120, 120
"""Maximum characters of texts in guided forms at the default limits."""
TASK_JSON_TOKENS, CHARS_PER_TOKEN = 35, 2.7
"""Tokens of a task in JSON beside its text, and characters of that text per token."""


class StepLimits(BaseModel):
    """Tokens per step, so that a run is bounded in time and fits the models' context. The defaults are for a
    small model with a context of `MIN_CONTEXT` tokens; `for_context` derives those of other models. A limit
    that a deployment sets stays as it is.

    Passed texts are measured by `clipping.estimate_tokens`, without a tokenizer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan_tokens: int = Field(default=320, ge=64)
    """Maximum tokens of a plan."""
    specialist_tokens: int | None = Field(default=192, ge=16)
    """Maximum tokens that a specialist or a debater writes; not set: no limit."""
    verdict_tokens: int = Field(default=224, ge=32)
    """Maximum tokens of a verdict, an analysis or a critique."""
    final_tokens: int = Field(default=384, ge=16)
    """Maximum tokens of the final answer, if the request has no `max_tokens`. It limits only small models,
    unless it is set; for others it is the room that is reserved."""
    conversation_tokens: int = Field(default=768, ge=32)
    """Maximum tokens of the conversation in the prompt of an agent: question, history and the caller's
    instructions together."""
    question_tokens: int | None = Field(default=None, ge=32)
    """Maximum tokens of the caller's question; not set: as many as fit."""
    history_tokens: int | None = Field(default=None, ge=0)
    """Maximum tokens of the conversation before the question; not set: as many as fit."""
    passed_tokens: int = Field(default=220, ge=16)
    """Maximum tokens of each answer that is passed to another agent; longer ones are cut."""
    source_tokens: int = Field(default=720, ge=32)
    """Maximum tokens of all sources in the prompt of a specialist."""
    tool_calls: int = Field(default=2, ge=0, le=4)
    """Maximum calls of tools in one step, where the agent chooses the tool, such as those of MCP servers."""
    max_specialists: int = Field(default=3, ge=1, le=8)
    """Maximum steps of a plan."""

    def task_chars(self, max_tasks: int) -> int:
        """Maximum characters of each of so many tasks of a plan."""
        room = round((self.plan_tokens / max_tasks - TASK_JSON_TOKENS) * CHARS_PER_TOKEN)
        return max(TASK_CHARS, min(room, self._scaled("plan_tokens", TASK_CHARS)))

    @property
    def fix_chars(self) -> int:
        """Maximum characters of each fix that a critic asks for."""
        return self._scaled("verdict_tokens", FIX_CHARS)

    @property
    def analysis_chars(self) -> int:
        """Maximum characters of the goal in a question's analysis."""
        return self._scaled("verdict_tokens", ANALYSIS_CHARS)

    @property
    def critique_chars(self) -> int:
        """Maximum characters of each entry of a debater's critique."""
        return self._scaled("verdict_tokens", CRITIQUE_CHARS)

    def _scaled(self, name: str, chars: int) -> int:
        """`chars` scaled by the limit `name`, whose default gives `chars`; never less."""
        return max(chars, chars * int(getattr(self, name)) // self._default(name))

    def for_context(
        self, context: int, conversation: float, max_tokens: int | None = None, *, small: bool = True
    ) -> Self:
        """The limits for models with a context of `context` tokens and a conversation of about
        `conversation`; `max_tokens` is the caller's limit. Tokens that the conversation leaves go to what is
        passed on. `small` says that the models are known to be small."""
        if context < MIN_CONTEXT:
            return self._set({name: self._default(name) * context // MIN_CONTEXT for name in _SCALED})
        final = _between(384, context // 10, 4096) if small else _between(384, context // 4, 4096)
        final = self._set({"final_tokens": final}).final_tokens
        answer = min(max_tokens or final, context // 2)
        passed = self._default("passed_tokens")
        room = context - AROUND_TOKENS - answer - passed * self.max_specialists
        left = max(0, room - int(conversation))
        fitted: dict[str, int | None] = {
            "final_tokens": final,
            "conversation_tokens": max(self._default("conversation_tokens"), room),
            "source_tokens": _between(720, context // 3, 12_000),
        }
        if small:
            fitted |= {
                "specialist_tokens": _between(192, context // 24, 1024),
                "passed_tokens": _between(passed, passed + left // self.max_specialists, context // 16),
            }
        else:  # what it writes is as long as it has to be, and is passed on whole where that fits
            fitted |= {
                "plan_tokens": _between(self._default("plan_tokens"), context // 8, 4096),
                "verdict_tokens": _between(self._default("verdict_tokens"), context // 8, 4096),
                "specialist_tokens": max_tokens and max(max_tokens, _between(192, context // 24, 1024)),
                "passed_tokens": _between(passed, passed + left // (self.max_specialists + 1), context // 4),
            }
        return self._set(fitted)

    def _set(self, values: Mapping[str, int | None]) -> Self:
        """The limits with `values`, but for those that a deployment has set."""
        return self.model_copy(
            update={name: value for name, value in values.items() if name not in self.model_fields_set}
        )

    @classmethod
    def _default(cls, name: str) -> int:
        return int(cls.model_fields[name].default)


_SCALED = (
    *(
        "plan_tokens",
        "specialist_tokens",
        "verdict_tokens",
        "final_tokens",
        "conversation_tokens",
        "passed_tokens",
    ),
    "source_tokens",
)


def _between(minimum: int, wanted: int, maximum: int) -> int:
    return max(minimum, min(wanted, maximum))
