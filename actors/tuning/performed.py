"""What is kept of a run for a day: how it was answered, and what its user says of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from actors.runtime.bus import Bus
from actors.runtime.kv import Bucket
from orchestration.messages import Wire
from orchestration.tuning.features import Kind
from orchestration.tuning.records import Judged, judged_by_user

BUCKET = "performed"


class Performed(Wire):
    """`arm` is '' where `auto` did not choose. `models` wrote the answer; none is there before its end.
    `score` and `comment` are the user's."""

    run: str
    caller: str = ""
    kind: Kind
    pattern: str
    arm: str = ""
    why: str = ""
    state: Literal["chosen", "ended"] = "chosen"
    models: tuple[str, ...] = ()
    score: float | None = Field(default=None, ge=-1, le=1)
    comment: str = ""

    def judged(self) -> Judged | None:
        """What the user's score teaches; None where there is none."""
        if self.score is None:
            return None
        return judged_by_user(self.arm or None, self.score, self.models)

    def encoded(self) -> bytes:
        return self.model_dump_json(exclude_defaults=True).encode()


def performed_runs(bus: Bus) -> Bucket:
    """By the runs' ids."""
    return Bucket(bus, BUCKET)
