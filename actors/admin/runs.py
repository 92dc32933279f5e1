"""Runs at work in the cluster: listed, shown, and cancelled by operators."""

from __future__ import annotations

import json
import time
from typing import Any

from pydantic import Field
from pydantic_core import to_json

from actors.admin.audit import Changed
from actors.admin.cluster_processes import ClusterProcesses
from actors.admin.requests import MAX_PAGE, ChangeRequest, NotThere, PageRequest
from actors.agents.active_runs import CANCEL, LIST, CancelRuns, ListRuns, RunFilter, run_key
from actors.bus.bus import Bus
from actors.bus.subjects import StreamAddress
from actors.config.cluster_settings import MAX_REASON
from actors.gateway.operation import CallContext, Reply
from actors.jobs.completion import cancel_job
from actors.jobs.records import is_job_id
from actors.jobs.store import JobStore
from actors.runtime.commands import CommandAnswers
from actors.streams.channel import OUT_OF_BAND
from actors.streams.handoff import RemoteReader
from actors.streams.run_events import RUN_ID, RunEventReader
from orchestration.errors import CancelledByOperator, InvalidRequest
from orchestration.messages import Finish, RunEnd, Wire, encode_event

ROLE = "agents"


class RunsPage(RunFilter, PageRequest):
    """A page of the runs at work, those that began first come first."""


class RunName(Wire):
    """The id of a run."""

    id: str = Field(min_length=1, max_length=128)
    """Id of the run, job or request, as in `X-Orchestra-Run`."""


class CancelRun(ChangeRequest):
    """Cancels one run, job or request."""

    id: str = Field(min_length=1, max_length=128)
    """Id of the run, job or request, as in `X-Orchestra-Run`."""


class CancelMatching(RunFilter, ChangeRequest):
    """Cancels all runs at work that match. At least one field of the filter, or `everything`, is needed."""

    reason: str = Field(min_length=1, max_length=MAX_REASON)
    """Why; the callers of the runs are told."""
    everything: bool = False
    """Cancel all runs; needed when the filter is empty."""
    dry_run: bool = False
    """Only list the runs that would be cancelled."""


class RunsAdmin:
    """The handlers of the operations on runs."""

    def __init__(self, bus: Bus, processes: ClusterProcesses) -> None:
        self.bus = bus
        self.processes = processes
        self.store = JobStore(bus)

    async def list_runs(self, request: RunsPage, call: CallContext) -> Reply:
        rows, missing = await self._rows(request, request.after, request.limit + 1)
        page = rows[: request.limit]
        more = run_key(page[-1]) if len(rows) > len(page) else ""
        return Reply(body=to_json({"object": "list", "data": page, "next": more, "missing": missing}))

    async def inspect(self, request: RunName, call: CallContext) -> Reply:
        """The run, and its events so far. A run that has ended stays for a minute."""
        rows, missing = await self._rows(RunFilter(id=request.id), "", 1)
        events: list[Any] = []
        if RUN_ID.fullmatch(request.id):
            async with RunEventReader(self.bus, request.id) as reader:
                events = [json.loads(line) for line in reader.replayed.splitlines()]
        if not rows and not events:
            raise self._unknown(request.id, missing)
        row = rows[0] if rows else {"id": request.id, "state": "ended"}
        return Reply(body=to_json(row | {"events": events}))

    async def cancel(self, request: CancelRun, call: CallContext) -> Changed:
        """Cancel a run wherever it is: at a coordinator, in a queue, or on a node. Raises `NotThere`."""
        by = call.operator
        wanted = CancelRuns(id=request.id, by=by, reason=request.reason)
        answered = await self.processes.ask(CANCEL, wanted.model_dump(mode="json"), ROLE)
        rows = _rows(answered)
        where = "running" if rows else await self._cancel_elsewhere(request, by)
        if not where:
            raise self._unknown(request.id, list(answered.missing))
        return Changed(
            target=request.id,
            before={"state": where},
            after={"state": "cancelled"},
            changed=where != "ended",
            body={"id": request.id, "was": where, "cancelled": where != "ended"},
            about={"run": request.id},
        )

    async def _cancel_elsewhere(self, request: CancelRun, by: str) -> str:
        """Cancel what no coordinator has; returns its state before, '' if it is unknown."""
        error = CancelledByOperator.of(f"run {request.id}", by, request.reason)
        if is_job_id(request.id):
            return await self._cancel_job(request.id, error)
        if RUN_ID.fullmatch(request.id) is None:
            return ""
        position = await RemoteReader(self.bus, request.id).peek(0.0)
        if position is None or not position.open:
            return ""
        end = RunEnd(finish=Finish(reason="cancelled"), error=error.body())
        address = StreamAddress(request.id)
        await self.bus.publish(address.subject, encode_event(OUT_OF_BAND, end))
        await self.bus.publish(address.cancel, b"%d" % time.time_ns())
        return "waiting or on a node"

    async def _cancel_job(self, job_id: str, error: CancelledByOperator) -> str:
        record = await self.store.record(job_id)
        if record is None:
            return ""
        if record.status.final:
            return "ended"
        cancelled = await cancel_job(self.bus, self.store, record, error)
        return record.status.value if cancelled else "ended"

    async def cancel_matching(self, request: CancelMatching, call: CallContext) -> Changed:
        """Cancel all runs at work that match, or list them with `dry_run`."""
        wanted = RunFilter.model_validate(request.model_dump(include=set(RunFilter.model_fields)))
        if wanted.is_empty and not request.everything:
            raise InvalidRequest("name a pattern, model, caller or age, or set `everything`")
        if request.dry_run:
            rows, missing = await self._rows(wanted, "", MAX_PAGE)
        else:
            order = CancelRuns(**wanted.model_dump(), by=call.operator, reason=request.reason).model_dump(
                mode="json"
            )
            answered = await self.processes.ask(CANCEL, order, ROLE)
            rows, missing = sorted(_rows(answered), key=run_key), list(answered.missing)
        return Changed(
            target=wanted.model_dump_json(exclude_defaults=True),
            before={"running": len(rows)},
            after={"cancelled": [row["id"] for row in rows][:100]},
            changed=bool(rows) and not request.dry_run,
            body={"dry_run": request.dry_run, "count": len(rows), "runs": rows, "missing": missing},
        )

    async def _rows(self, wanted: RunFilter, after: str, limit: int) -> tuple[list[Any], list[str]]:
        fields = wanted.model_dump(include=set(RunFilter.model_fields))
        request = ListRuns(**fields, after=after, limit=min(limit, MAX_PAGE))
        answered = await self.processes.ask(LIST, request.model_dump(mode="json"), ROLE)
        return sorted(_rows(answered), key=run_key)[:limit], list(answered.missing)

    @staticmethod
    def _unknown(run_id: str, missing: list[str]) -> NotThere:
        silent = f"; {', '.join(missing)} did not answer" if missing else ""
        return NotThere(f"no run, job or request {run_id!r} is at work or waits{silent}", param="id")


def _rows(answered: CommandAnswers) -> list[dict[str, Any]]:
    """The runs of all coordinators, with the process of each."""
    return [{**row, "process": answer.process} for answer in answered.answers for row in (answer.data or ())]
