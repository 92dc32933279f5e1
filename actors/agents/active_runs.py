"""Lists the runs of a coordinator for operators, and cancels some of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from actors.agents.run_completion import JobCompletion, RunCompletion
from actors.bus.bus import Bus
from actors.runtime.commands import CommandResponder
from orchestration.errors import CancelledByOperator
from orchestration.messages import Run, Wire

LIST, CANCEL = "runs.list", "runs.cancel"
MAX_RUNS = 1_000
"""Maximum runs in one answer."""


class RunFilter(Wire):
    """Which runs are meant: those that match every field that is not empty."""

    id: str = Field(default="", max_length=128)
    """Id of one run."""
    pattern: str = Field(default="", max_length=64)
    """Name of a pattern."""
    model: str = Field(default="", max_length=256)
    """Model that the run was asked to use, or of the job."""
    caller: str = Field(default="", max_length=64)
    """Name of the caller."""
    older_than_s: float = Field(default=0, ge=0, le=1e9)
    """Minimum time since the run began, in seconds."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a run, as `ActiveRuns` lists it, is meant."""
        named = {"id": self.id, "pattern": self.pattern, "model": self.model, "caller": self.caller}
        return time.time() - row["started_at"] >= self.older_than_s and all(
            not value or row[name] == value for name, value in named.items()
        )

    @property
    def is_empty(self) -> bool:
        """Whether every run matches."""
        return self == RunFilter()


class ListRuns(RunFilter):
    """The first runs of a coordinator that match, in the order of `run_key`, after `after`."""

    after: str = ""
    limit: int = Field(default=MAX_RUNS, ge=1, le=MAX_RUNS)


class CancelRuns(RunFilter):
    """Cancels the runs that match."""

    by: str
    reason: str = ""


def run_key(row: Mapping[str, Any]) -> str:
    """Orders runs by the time they began."""
    return f"{row['started_at']:.3f} {row['id']}"


class ActiveRuns:
    """Answers for the runs in `open`, by id."""

    def __init__(self, bus: Bus, open_runs: Mapping[str, RunCompletion]) -> None:
        self.open = open_runs
        self._responder = CommandResponder(bus, "coordinator")

    async def start(self) -> None:
        await self._responder.serve(LIST, ListRuns, self._list)
        await self._responder.serve(CANCEL, CancelRuns, self._cancel)

    async def stop(self) -> None:
        await self._responder.stop()

    def _list(self, wanted: ListRuns) -> list[dict[str, Any]]:
        rows = [row for each in self.open.values() if wanted.matches(row := _row(each))]
        return [row for row in sorted(rows, key=run_key) if run_key(row) > wanted.after][: wanted.limit]

    def _cancel(self, wanted: CancelRuns) -> list[dict[str, Any]]:
        """Cancel the runs that match; returns them."""
        found = [(each, row) for each in self.open.values() if wanted.matches(row := _row(each))][:MAX_RUNS]
        for completion, row in found:
            completion.stop(CancelledByOperator.of(f"run {row['id']}", wanted.by, wanted.reason))
        return [row for _, row in found]


def _row(completion: RunCompletion) -> dict[str, Any]:
    execution = completion.execution
    work = execution.work
    return {
        "id": work.id,
        "kind": "job" if isinstance(completion, JobCompletion) else "run",
        "state": "running",
        "pattern": work.pattern if isinstance(work, Run) else "",
        "model": work.model or "",
        "caller": execution.envelope.caller,
        "priority": str(work.priority),
        "attempt": completion.delivery.attempt,
        "steps": len(execution.steps),
        "started_at": round(completion.started_at, 3),
        "trace": execution.envelope.trace.split("-")[1] if execution.envelope.trace else "",
    }
