"""How urgent waiting work is."""

from __future__ import annotations

from enum import StrEnum


class Priority(StrEnum):
    """The three queues of waiting work, most urgent first."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"
