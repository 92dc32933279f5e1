"""The table of the operations of operators.

Each is served under `/admin` and under `orchestra.admin.`, and has its row in docs/reference/admin.md. A
change takes all its parameters in the body, and answers after its audit record was handed over. A new
operation is a new row of two lines, which ruff leaves as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel

from actors.admin.audit import Audit, Change
from actors.admin.breakers import BreakersAdmin, BreakersPage, HoldBreaker, ResetBreakers
from actors.admin.cache import CacheAdmin, ClearCache
from actors.admin.cluster_processes import ClusterProcesses
from actors.admin.description import Description
from actors.admin.jobs import ChangeLetter, JobName, JobsAdmin, LetterNumber, NewestPage
from actors.admin.keys import AddCaller, CallerChange, KeysAdmin, RemoveCaller
from actors.admin.logs import EndedRuns, EventNumber, ListEvents, LogsAdmin, ShowUsage
from actors.admin.models import ListModelPulls, ModelChange, ModelsAdmin, PinChange, PullToNode
from actors.admin.nodes import ChangeLabels, DrainNode, NodeChange, NodeId, NodesAdmin
from actors.admin.patterns import PatternChange, PatternsAdmin
from actors.admin.purge import PurgeQueue, PurgesAdmin
from actors.admin.queues import QueueChange, QueuesAdmin
from actors.admin.requests import ChangeRequest, PageRequest
from actors.admin.runs import CancelMatching, CancelRun, RunName, RunsAdmin, RunsPage
from actors.admin.settings import (
    ListChanges,
    ListSettings,
    SetSettings,
    SettingsAdmin,
    UndoSettings,
    UnsetSettings,
)
from actors.gateway.operation import Access, Handler, NoFields, Operation
from actors.gateway.run_events import RunEvents, RunId

ADMIN_TITLE = "Orchestra: operations for operators"
MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminServices:
    """What answers the operations."""

    audit: Audit
    description: Description
    nodes: NodesAdmin
    models: ModelsAdmin
    queues: QueuesAdmin
    purges: PurgesAdmin
    settings: SettingsAdmin
    keys: KeysAdmin
    runs: RunsAdmin
    run_events: RunEvents
    jobs: JobsAdmin
    breakers: BreakersAdmin
    cache: CacheAdmin
    patterns: PatternsAdmin
    processes: ClusterProcesses
    logs: LogsAdmin


Row = Operation[AdminServices]


def _see(
    name: str,
    path: str,
    summary: str,
    handler: Callable[[AdminServices], Handler],
    request: type[BaseModel] = NoFields,
) -> Row:
    """An operation that only reads, over GET."""
    return _row(name, "GET", path, summary, request, handler)


def _change(
    name: str,
    path: str,
    summary: str,
    change: Callable[[AdminServices], Change],
    request: type[ChangeRequest],
) -> Row:
    """An operation that changes something, over POST, and is recorded."""
    return _row(
        name, "POST", path, summary, request, lambda services: services.audit.handler(name, change(services))
    )


def _row(
    name: str,
    method: str,
    path: str,
    summary: str,
    request: type[BaseModel],
    handler: Callable[[AdminServices], Handler],
) -> Row:
    return Operation(
        f"admin-{name.replace('.', '-')}",
        method,
        f"/admin{path}",
        summary,
        subject=f"orchestra.admin.{name}",
        request=request,
        max_bytes=MAX_BODY_BYTES,
        access=Access.ADMIN,
        handler=handler,
    )


# fmt: off
ADMIN_OPERATIONS: tuple[Row, ...] = (
    _see("nodes.list", "/nodes", "List the live nodes", lambda s: s.nodes.list_nodes, PageRequest),
    _see("nodes.inspect", "/nodes/{id}", "Show everything about one node", lambda s: s.nodes.inspect, NodeId),
    _change("nodes.drain", "/nodes/drain", "Let a node take no new work, finish its own, and leave",
            lambda s: s.nodes.drain, DrainNode),
    _change("nodes.label", "/nodes/label", "Set and remove labels of a node, until it ends",
            lambda s: s.nodes.label, ChangeLabels),
    _change("nodes.remove", "/nodes/remove", "Forget a node that has died",
            lambda s: s.nodes.remove, NodeChange),
    _see("models.list", "/models", "List the models with their replicas", lambda s: s.models.list_models,
         PageRequest),
    _change("models.load", "/models/load", "Load a model into the memory of its nodes",
            lambda s: s.models.load, ModelChange),
    _change("models.unload", "/models/unload", "Free the memory of a model; it stays on offer",
            lambda s: s.models.unload, ModelChange),
    _change("models.pin", "/models/pin", "Keep a model in memory, or let it be evicted again",
            lambda s: s.models.pin, PinChange),
    _change("models.pull", "/models/pull", "Download a model of the catalogue to a node, and offer it",
            lambda s: s.models.pull, PullToNode),
    _see("models.pulls", "/models/pulls", "List the latest pulls of nodes with their progress",
         lambda s: s.models.pulls, ListModelPulls),
    _see("queues.list", "/queues", "List the queues with their depth, age and pause",
         lambda s: s.queues.list_queues, PageRequest),
    _change("queues.pause", "/queues/pause", "Let nothing of a queue begin; accepted work stays",
            lambda s: s.queues.pause, QueueChange),
    _change("queues.resume", "/queues/resume", "Take the pause of a queue back",
            lambda s: s.queues.resume, QueueChange),
    _change("queues.purge", "/queues/purge", "End everything that waits in a queue, after a confirmation",
            lambda s: s.purges.purge, PurgeQueue),
    _see("settings.list", "/settings", "Show settings with their values and where these come from",
         lambda s: s.settings.list_settings, ListSettings),
    _see("settings.history", "/settings/history", "List the last changes of settings",
         lambda s: s.settings.history, ListChanges),
    _see("settings.followers", "/settings/followers", "Show which revision of the settings each process uses",
         lambda s: s.settings.followers),
    _change("settings.set", "/settings/set", "Change settings in all processes while they run",
            lambda s: s.settings.set, SetSettings),
    _change("settings.unset", "/settings/unset", "Let files and defaults decide settings again",
            lambda s: s.settings.unset, UnsetSettings),
    _change("settings.undo", "/settings/undo", "Undo a change of settings",
            lambda s: s.settings.undo, UndoSettings),
    _see("keys.list", "/keys", "List the callers with their limits and scopes", lambda s: s.keys.list_keys),
    _change("keys.add", "/keys/add", "Add a caller; the answer shows its key once",
            lambda s: s.keys.add, AddCaller),
    _change("keys.rotate", "/keys/rotate", "Give a caller another key; the old one ends at once",
            lambda s: s.keys.rotate, CallerChange),
    _change("keys.remove", "/keys/remove", "Remove a caller; its key ends at once",
            lambda s: s.keys.remove, RemoveCaller),
    _see("runs.list", "/runs", "List the runs and jobs at work, those that began first come first",
         lambda s: s.runs.list_runs, RunsPage),
    _see("runs.ended", "/runs/ended", "List the runs and jobs that have ended, the last one first",
         lambda s: s.logs.ended_runs, EndedRuns),
    _see("runs.inspect", "/runs/{id}", "Show a run with its events so far",
         lambda s: s.runs.inspect, RunName),
    Operation("admin-runs-watch", "GET", "/admin/runs/{id}/events",
              "The events of a run of any caller, as server-sent events", request=RunId, access=Access.ADMIN,
              http_handler=lambda s: s.run_events.stream),
    _change("runs.cancel", "/runs/cancel", "Cancel a run, job or request; its caller is told why",
            lambda s: s.runs.cancel, CancelRun),
    _change("runs.cancel_matching", "/runs/cancel-matching", "Cancel all runs at work that match a filter",
            lambda s: s.runs.cancel_matching, CancelMatching),
    _see("jobs.list", "/jobs", "List the jobs of all callers, the last changed first",
         lambda s: s.jobs.list_jobs, NewestPage),
    _see("jobs.get", "/jobs/{id}", "A job of any caller with its answer", lambda s: s.jobs.get, JobName),
    _see("dead.list", "/dead", "List the dead letters, the latest first", lambda s: s.jobs.list_letters,
         NewestPage),
    _see("dead.show", "/dead/{number}", "Show a dead letter with its work", lambda s: s.jobs.show_letter,
         LetterNumber),
    _change("dead.retry", "/dead/retry", "Queue a dead letter again with all its attempts",
            lambda s: s.jobs.retry, ChangeLetter),
    _change("dead.delete", "/dead/delete", "Delete a dead letter for good",
            lambda s: s.jobs.delete, ChangeLetter),
    _see("breakers.list", "/breakers", "List the breakers that are not closed, with their state by process",
         lambda s: s.breakers.list_breakers, BreakersPage),
    _change("breakers.hold", "/breakers/hold", "Hold a breaker open: a node gets no generations of a model",
            lambda s: s.breakers.hold, HoldBreaker),
    _change("breakers.reset", "/breakers/reset", "Close breakers, also those that are held open",
            lambda s: s.breakers.reset, ResetBreakers),
    _see("cache.show", "/cache", "Show what the gateways and the shared bucket have cached",
         lambda s: s.cache.show),
    _change("cache.clear", "/cache/clear", "Use no cached response of a model or caller from before now",
            lambda s: s.cache.clear, ClearCache),
    _see("patterns.list", "/patterns", "List the patterns, and which are disabled",
         lambda s: s.patterns.list_patterns),
    _change("patterns.disable", "/patterns/disable", "Refuse requests that name a pattern",
            lambda s: s.patterns.disable, PatternChange),
    _change("patterns.enable", "/patterns/enable", "Accept requests that name a pattern again",
            lambda s: s.patterns.enable, PatternChange),
    _see("processes.list", "/processes", "List the processes, also those that do not answer",
         lambda s: s.processes.list_processes, PageRequest),
    _see("logs.list", "/logs", "List the events of the central log without their bodies, the newest first",
         lambda s: s.logs.list_events, ListEvents),
    _see("logs.show", "/logs/{number}", "Show one event of the central log", lambda s: s.logs.show,
         EventNumber),
    _see("usage.show", "/usage", "Show requests and tokens by caller and model, from the central log",
         lambda s: s.logs.usage, ShowUsage),
    _see("openapi", "/openapi.json", "The OpenAPI 3.1 description of these operations",
         lambda s: s.description.openapi),
)
# fmt: on
