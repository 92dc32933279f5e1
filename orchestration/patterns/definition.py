"""A pattern: one async generator function with a name and with settings of its own.

    class Settings(PatternSettings):
        voices: int = Field(default=3, ge=2, le=8)

    @pattern("chorus", settings=Settings)
    async def chorus(
        run: Run, context: RunContext, settings: Settings
    ) -> AsyncGenerator[TextDelta | StepResult, None]:
        \"""Several voices at once.\"""
        …

It yields the text for the caller as `TextDelta`s, token by token, and the `StepResult` of its last step last.
All it can do is to ask its `RunContext`; what lives behind that (the bus, agents, nodes) it does not know.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from inspect import getdoc, isasyncgenfunction
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestration.errors import InvalidRequest
from orchestration.messages import Run, TextDelta
from orchestration.patterns.base import StepResult
from orchestration.patterns.run_context import RunContext
from orchestration.validation import first_problem

NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


class PatternSettings(BaseModel):
    """The settings of a pattern: subclass it. Every field needs a default; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SettingsT = TypeVar("SettingsT", bound=PatternSettings)
PatternOutput = AsyncGenerator[TextDelta | StepResult, None]


_WRONG = {
    "extra_forbidden": "unknown name",
    "tuple_type": 'Input should be a list, such as ["a", "b"]',
}
"""Messages for callers in place of pydantic's, by the type of error."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern; `description` says in one line what it does."""

    name: str
    description: str
    settings: type[PatternSettings]
    perform: Callable[[Run, RunContext, Any], PatternOutput]

    def __post_init__(self) -> None:
        """Raises `ValueError` for an invalid pattern."""
        if not NAME.fullmatch(self.name):
            raise ValueError(f"invalid pattern name {self.name!r}: use lower-case letters, digits and -")
        if not (isinstance(self.settings, type) and issubclass(self.settings, PatternSettings)):
            raise ValueError(f"the settings of pattern {self.name!r} must be a subclass of PatternSettings")
        needed = [name for name, field in self.settings.model_fields.items() if field.is_required()]
        if needed:
            raise ValueError(f"settings of pattern {self.name!r} without a default: {', '.join(needed)}")
        if not isasyncgenfunction(self.perform):
            raise ValueError(
                f"pattern {self.name!r} must be an async function that yields TextDeltas and its StepResult"
            )

    def __call__(self, run: Run, context: RunContext) -> PatternOutput:
        """Perform `run`. Raises `InvalidRequest` for wrong settings."""
        return self.perform(run, context, self.set(context.facts.defaults.get(self.name, {}), run.settings))

    def inside(self, run: Run, context: RunContext) -> PatternOutput:
        """Perform it as a part of another pattern, which `run.settings` belong to."""
        return self.perform(run, context, self.set(context.facts.defaults.get(self.name, {})))

    def set(self, *layers: Mapping[str, Any]) -> PatternSettings:
        """The effective settings: later mappings override earlier ones, field by field.

        Raises `InvalidRequest` that names the field as a request does, `orchestra.settings.<field>`.
        """
        merged = {name: value for each in layers for name, value in each.items()}
        try:
            return self.settings.model_validate(merged)
        except ValidationError as error:
            problem = first_problem(error, under="orchestra.settings")
            where, wrong = problem.where, _WRONG.get(problem.type, problem.message)
            known = ", ".join(sorted(self.settings.model_fields)) or "none"
            raise InvalidRequest(
                f"{where}: {wrong}; settings of {self.name}: {known}", param=where
            ) from error


def pattern(
    name: str, settings: type[SettingsT] | type[PatternSettings] = PatternSettings
) -> Callable[[Callable[[Run, RunContext, SettingsT], PatternOutput]], Pattern]:
    """Make a pattern of the function below; the first sentence of its docstring is its description. Raises
    `ValueError` for an invalid pattern."""

    def decorate(perform: Callable[[Run, RunContext, SettingsT], PatternOutput]) -> Pattern:
        paragraph = " ".join((getdoc(perform) or "").split("\n\n")[0].split())
        description = paragraph.split(". ")[0].rstrip(".")
        return Pattern(name, description, settings, perform)

    return decorate
