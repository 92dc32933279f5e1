"""Marks the settings that can be changed while processes run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HotMark:
    """The mark, in the metadata of a field. On a section it holds for everything in it."""


Hot = Annotated[T, HotMark()]
"""`max_in_flight: Hot[int]` can be changed while processes run: they follow within a second."""
