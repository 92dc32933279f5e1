"""The patterns by name. Each is a virtual model, `orchestra/<name>`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from orchestration.errors import UnknownModel
from orchestration.patterns.auto import auto
from orchestration.patterns.debate import debate
from orchestration.patterns.decompose import decompose
from orchestration.patterns.definition import Pattern
from orchestration.patterns.ensemble import ensemble
from orchestration.patterns.maestro import maestro
from orchestration.patterns.self_consistency import self_consistency
from orchestration.patterns.single import single
from orchestration.patterns.specialists import code, reasoning, research
from orchestration.virtual_models import PATTERN_PREFIX

BUILT_IN_ORIGIN = "built-in"


class NameTaken(ValueError):
    """Another pattern has the name already."""


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plug-in that cannot be used. `names` are the patterns that it was to bring, as far as they are
    known."""

    names: tuple[str, ...]
    origin: str
    reason: str


class Catalogue(Mapping[str, Pattern]):
    """The patterns that a process knows, in the order of their names. It is immutable: `plus` and `without`
    return another catalogue.

    `broken` are the plug-ins that cannot be used.
    """

    def __init__(
        self,
        patterns: Iterable[Pattern] = (),
        origins: Mapping[str, str] | None = None,
        broken: Iterable[BrokenPlugin] = (),
    ) -> None:
        """`origins` says where patterns come from, by their names; Orchestra's own need no entry."""
        self._patterns = {each.name: each for each in sorted(patterns, key=lambda each: each.name)}
        self._origins = dict(origins or {})
        self.broken = tuple(broken)
        self.virtual_models = tuple(PATTERN_PREFIX + name for name in self._patterns)
        """The names that a caller may use in place of a model's."""

    def __getitem__(self, name: str) -> Pattern:
        return self._patterns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._patterns)

    def __len__(self) -> int:
        return len(self._patterns)

    def origin(self, name: str) -> str:
        """The origin of a pattern."""
        return self._origins.get(name, BUILT_IN_ORIGIN)

    def find(self, name: str, also: Iterable[str] = ()) -> Pattern:
        """The pattern of this name. Raises `UnknownModel` with the reason why it cannot be used, or with the
        available names: patterns, and the models `also`."""
        found = self._patterns.get(name)
        if found is not None:
            return found
        for broken in self.broken:
            if name in broken.names:
                raise UnknownModel(
                    f"pattern {name!r} of {broken.origin} cannot be used: {broken.reason}", param="model"
                )
        raise UnknownModel.of(PATTERN_PREFIX + name, [*also, *self.virtual_models])

    def plus(self, pattern: Pattern, origin: str) -> Self:
        """The catalogue with one more pattern. Raises `NameTaken`."""
        if pattern.name in self._patterns:
            by = self.origin(pattern.name)
            whose = "a pattern of Orchestra's own" if by == BUILT_IN_ORIGIN else f"the one of {by}"
            raise NameTaken(f"the name {pattern.name!r} is taken by {whose}")
        origins = self._origins | {pattern.name: origin}
        return type(self)((*self._patterns.values(), pattern), origins, self.broken)

    def without(self, broken: BrokenPlugin) -> Self:
        """The catalogue with one more broken plug-in."""
        return type(self)(self._patterns.values(), self._origins, (*self.broken, broken))

    def to_json(self) -> dict[str, Any]:
        """The catalogue as JSON. `settings` is the JSON schema of the request's `orchestra.settings`."""
        data = [
            {
                "id": name,
                "object": "pattern",
                "model": PATTERN_PREFIX + name,
                "description": pattern.description,
                "origin": self.origin(name),
                "settings": pattern.settings.model_json_schema(),
            }
            for name, pattern in self.items()
        ]
        return {"object": "list", "data": data, "broken": [asdict(each) for each in self.broken]}


BUILT_IN = Catalogue(
    (auto, code, debate, decompose, ensemble, maestro, reasoning, research, self_consistency, single)
)
