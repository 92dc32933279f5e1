"""Serves the operations of operators at a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.admin.audit import Audit
from actors.admin.breakers import BreakersAdmin
from actors.admin.cache import CacheAdmin
from actors.admin.cluster_processes import ClusterProcesses
from actors.admin.description import Description
from actors.admin.jobs import JobsAdmin, job_cancels
from actors.admin.keys import KeysAdmin, keep_a_key
from actors.admin.logs import LogsAdmin
from actors.admin.models import ModelsAdmin
from actors.admin.nodes import NodesAdmin
from actors.admin.operations import ADMIN_OPERATIONS, ADMIN_TITLE, MAX_BODY_BYTES, AdminServices
from actors.admin.patterns import PatternsAdmin
from actors.admin.purge import PurgesAdmin
from actors.admin.queues import QueuesAdmin
from actors.admin.runs import RunsAdmin
from actors.admin.settings import SettingsAdmin
from actors.config.hot_settings import HotSettings
from actors.config.settings_writer import SettingsWriter
from actors.gateway.openapi import openapi
from actors.gateway.operation_service import OperationService, operation_endpoints
from actors.gateway.process import RunningGateway
from actors.gateway.run_events import RunEvents
from actors.runtime.system import ActorSystem
from actors.settings import Settings

DRAIN_S = 3.0


@asynccontextmanager
async def run_admin(
    running: RunningGateway, system: ActorSystem, hot: HotSettings[Settings]
) -> AsyncIterator[None]:
    """Add the operations to a gateway that starts; at its end finish those in progress. `hot` are the
    settings of this process."""
    gateway = running.gateway
    writer = SettingsWriter(gateway.bus, hot, (keep_a_key,))
    nodes = NodesAdmin(gateway.bus, gateway.registry)
    queues = QueuesAdmin(gateway.bus, gateway.registry)
    processes = ClusterProcesses(gateway.bus)
    audit = Audit(gateway.bus)
    running.jobs.on_operator_cancel = job_cancels(audit)
    services = AdminServices(
        audit=audit,
        description=Description(lambda: openapi(ADMIN_OPERATIONS, ADMIN_TITLE)),
        nodes=nodes,
        models=ModelsAdmin(nodes),
        queues=queues,
        purges=PurgesAdmin(queues),
        settings=SettingsAdmin(writer),
        keys=KeysAdmin(writer),
        runs=RunsAdmin(gateway.bus, processes),
        run_events=RunEvents(running.jobs, every_caller=True),
        jobs=JobsAdmin(gateway.bus),
        breakers=BreakersAdmin(gateway.registry, processes),
        cache=CacheAdmin(gateway.bus, gateway.registry.orders, processes),
        patterns=PatternsAdmin(gateway.registry.orders, gateway.resolver.catalogue),
        processes=processes,
        logs=LogsAdmin(gateway.bus),
    )
    running.api.serve(ADMIN_OPERATIONS, services)
    ref = await system.spawn(
        OperationService, lambda: OperationService(gateway, services), name="gateway admin"
    )
    for endpoint in operation_endpoints(ref, ADMIN_OPERATIONS, MAX_BODY_BYTES):
        await running.service.add(endpoint)
    await processes.start()
    try:
        yield
    finally:
        await processes.stop()
        await services.run_events.stop()
        await ref.host.drain(DRAIN_S)
