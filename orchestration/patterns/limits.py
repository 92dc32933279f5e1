"""How many tokens each step of a pattern may read and write, by the context of the models that take part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

MIN_CONTEXT = 2048
"""What the defaults fit, and what is taken where no model is known."""
UNKNOWN_CONTEXT = 8192
"""Of a model whose server does not say; those that are served today have that or more."""
AROUND_TOKENS = 240
"""Kept for a role's prompt and for our instructions."""

TASK_CHARS, FIX_CHARS, ANALYSIS_CHARS, CRITIQUE_CHARS = 120, 90, 120, 120
"""Characters of texts in guided forms at the default limits."""


class StepLimits(BaseModel):
    """Tokens per step, so that a run stays bounded in time and fits the models' context. The defaults are for
    a small model with a context of `MIN_CONTEXT` tokens: see `within` for others. What is set stays so.

    What is passed on is measured by `clipping.estimate_tokens`, which knows no tokenizer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan_tokens: int = Field(default=320, ge=64)
    specialist_tokens: int | None = Field(default=192, ge=16)
    """Of what a specialist or a debater writes; None is as much as it likes."""
    verdict_tokens: int = Field(default=224, ge=32)
    """Of a verdict, an analysis or a critique, which are guided and end by themselves."""
    final_tokens: int = Field(default=384, ge=16)
    """Of the answer, where the caller did not say `max_tokens`. To a model that is not known to be small no
    limit of ours is sent, unless it is set: then this is what room is kept for."""
    talk_tokens: int = Field(default=768, ge=32)
    """Of the conversation as the agents of a team see it: the question, what was said before and the caller's
    instructions share it by need."""
    question_tokens: int | None = Field(default=None, ge=32)
    """Of the caller's question at most; None is as much as there is room for."""
    history_tokens: int | None = Field(default=None, ge=0)
    """Of what was said before the question at most; None is as much as there is room for."""
    passed_tokens: int = Field(default=220, ge=16)
    """Of each answer that is passed on to other agents."""
    material_tokens: int = Field(default=720, ge=32)
    """Of sources that a specialist is given, all together."""
    tool_calls: int = Field(default=2, ge=0, le=4)
    """Of a step's tools that an agent chooses by itself, such as those of MCP servers."""
    max_specialists: int = Field(default=3, ge=1, le=8)
    """Steps of a plan."""

    @property
    def task_chars(self) -> int:
        """Characters of each task of a plan."""
        return self._scaled("plan_tokens", TASK_CHARS)

    @property
    def fix_chars(self) -> int:
        """Characters of each fix that a critic asks for."""
        return self._scaled("verdict_tokens", FIX_CHARS)

    @property
    def analysis_chars(self) -> int:
        """Characters of what a question asks for, in its analysis."""
        return self._scaled("verdict_tokens", ANALYSIS_CHARS)

    @property
    def critique_chars(self) -> int:
        """Characters of each entry of a debater's critique."""
        return self._scaled("verdict_tokens", CRITIQUE_CHARS)

    def _scaled(self, name: str, chars: int) -> int:
        """`chars` is the bound at the default of the limit `name`; a higher limit raises it alike."""
        return max(chars, chars * int(getattr(self, name)) // self._default(name))

    def within(self, context: int, talk: float, written: int | None = None, *, small: bool = True) -> Self:
        """The limits for models that take `context` tokens and a conversation of about `talk`; `written` are
        those that the caller wants at most. What the conversation leaves goes to what is passed on. `small`
        says that the models are known to be."""
        if context < MIN_CONTEXT:
            return self._set({name: self._default(name) * context // MIN_CONTEXT for name in _SCALED})
        final = _between(384, context // 10, 4096) if small else _between(384, context // 4, 4096)
        final = self._set({"final_tokens": final}).final_tokens
        answer = min(written or final, context // 2)
        passed = self._default("passed_tokens")
        room = context - AROUND_TOKENS - answer - passed * self.max_specialists
        left = max(0, room - int(talk))
        fitted: dict[str, int | None] = {
            "final_tokens": final,
            "talk_tokens": max(self._default("talk_tokens"), room),
            "material_tokens": _between(720, context // 3, 12_000),
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
                "specialist_tokens": written and max(written, _between(192, context // 24, 1024)),
                "passed_tokens": _between(passed, passed + left // (self.max_specialists + 1), context // 4),
            }
        return self._set(fitted)

    def _set(self, values: Mapping[str, int | None]) -> Self:
        """With `values` where a deployment has set nothing."""
        return self.model_copy(
            update={name: value for name, value in values.items() if name not in self.model_fields_set}
        )

    @classmethod
    def _default(cls, name: str) -> int:
        return int(cls.model_fields[name].default)


_SCALED = (
    *("plan_tokens", "specialist_tokens", "verdict_tokens", "final_tokens", "talk_tokens", "passed_tokens"),
    "material_tokens",
)


def _between(least: int, wanted: int, most: int) -> int:
    return max(least, min(wanted, most))
