"""What a run gives beside its answer: its steps, notes for the caller, and what its pattern found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestration.accounts import total_of
from orchestration.messages import Step, Usage


@dataclass(slots=True)
class RunReport:
    """`steps` are those that are over. `notes` are what the caller should know of the answer, such as that a
    voter is missing. `sections` are what the pattern found, as JSON: agreement, sources, and the like."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sections: dict[str, Any] = field(default_factory=dict)

    def extend(self, section: str, entries: Iterable[Any]) -> None:
        """Add to a section that is a list, which is made where there is none. Entries with a number `n`, such
        as sources, stay in its order."""
        listed = self.sections.setdefault(section, [])
        listed.extend(entries)
        if listed and "n" in listed[0]:
            listed.sort(key=lambda entry: int(entry["n"]))

    def merge(self, sections: dict[str, Any]) -> None:
        """Add the sections of a step that was done elsewhere. Lists are joined."""
        for name, value in sections.items():
            if isinstance(value, list):
                self.extend(name, value)
            else:
                self[name] = value

    def __getitem__(self, section: str) -> Any:
        return self.sections[section]

    def __setitem__(self, section: str, value: Any) -> None:
        self.sections[section] = value

    def __contains__(self, section: str) -> bool:
        return section in self.sections

    @property
    def usage(self) -> Usage:
        """Tokens of all steps, also of those that failed or were stopped."""
        return total_of(self.steps)
