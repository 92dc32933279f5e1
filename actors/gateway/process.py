"""Runs a gateway in a process: its registry, its stream client, HTTP and NATS."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from actors.bus.bus import Bus
from actors.cluster.registry import Registry
from actors.gateway.chat_service import ChatService, chat_endpoint, service_info
from actors.gateway.connections import ConnectionTable
from actors.gateway.feedback import FeedbackApi
from actors.gateway.gateway import Gateway
from actors.gateway.generations import GenerationRoutes
from actors.gateway.http import GRACE_S, HttpServer
from actors.gateway.http_api import HttpApi
from actors.gateway.jobs_api import JobsApi
from actors.gateway.operation_service import OperationService, operation_endpoints
from actors.gateway.operations import OPERATIONS, Services, routes_text
from actors.gateway.run_events import RunEvents
from actors.gateway.settings import GatewaySettings
from actors.gateway.status import StatusRoutes
from actors.jobs.settings import JobsSettings
from actors.placement.direct import DirectPath
from actors.placement.settings import DEFAULT_PLACEMENT, PlacementSettings
from actors.runtime.service import Service
from actors.runtime.system import ActorSystem
from actors.streams.client import StreamClient
from orchestration.patterns import BUILT_IN, Catalogue

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGateway:
    """`url` is where HTTP is served, `connections` those that are open there. `api` and `service` are what
    answers over HTTP and NATS, `direct` is what places generations without a queue."""

    gateway: Gateway
    url: str
    connections: ConnectionTable
    api: HttpApi
    service: Service
    jobs: JobsApi
    direct: DirectPath

    def update_settings(self, settings: GatewaySettings) -> None:
        """Take other settings for what begins from now on; connections that are open keep their timeouts."""
        self.gateway.update_settings(settings)
        self.connections.update_settings(settings)
        self.api.body_memory.limit_bytes = settings.max_bodies_bytes


Extension = Callable[[RunningGateway], AbstractAsyncContextManager[None]]
"""Adds operations to a gateway before it accepts requests, and ends after it."""


@asynccontextmanager
async def run_gateway(
    bus: Bus,
    settings: GatewaySettings,
    system: ActorSystem,
    http: HttpServer | None = None,
    jobs: JobsSettings | None = None,
    placement: PlacementSettings = DEFAULT_PLACEMENT,
    catalogue: Catalogue = BUILT_IN,
    registry: Registry | None = None,
    extension: Extension | None = None,
) -> AsyncIterator[RunningGateway]:
    """Serve until the block ends; then refuse new requests and finish those in flight, within `drain_s`.

    Raises `HttpPortBusy` before anything else is started. Pass `http` to bind the port earlier, before other
    parts of the process start. `placement` is that of the dispatchers, `catalogue` that of the agents;
    `registry` is shared with other roles of the process. `extension` adds operations.
    """
    server = http or HttpServer(settings)
    server.connections.update_settings(settings)  # those of the cluster came after it was made
    registry = registry or Registry(bus, placement.fallbacks)
    direct = DirectPath(bus, registry, placement)
    streams = StreamClient(bus, direct=direct)
    gateway = Gateway(bus, streams, registry, settings, catalogue)
    service = Service(bus, service_info(bus))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop)
        await registry.start()
        stack.push_async_callback(registry.stop)
        await streams.start()
        stack.push_async_callback(streams.stop)
        stack.push_async_callback(gateway.stop)
        await gateway.start()
        chat = await system.spawn(ChatService, lambda: ChatService(gateway), name="gateway")
        stack.push_async_callback(chat.host.drain, 0)
        await service.add(chat_endpoint(chat, gateway.resolver, settings.max_body_bytes))
        jobs_api = JobsApi(gateway, jobs or JobsSettings())
        stack.push_async_callback(jobs_api.quota.stop)
        run_events = RunEvents(jobs_api)
        services = Services(
            generations=GenerationRoutes(gateway),
            jobs=jobs_api,
            feedback=FeedbackApi(gateway),
            run_events=run_events,
            status=StatusRoutes(gateway, routes_text()),
        )
        operations = await system.spawn(
            OperationService, lambda: OperationService(gateway, services), name="gateway operations"
        )
        stack.push_async_callback(operations.host.drain, GRACE_S)
        for endpoint in operation_endpoints(operations, OPERATIONS, settings.max_body_bytes):
            await service.add(endpoint)
        api = HttpApi(gateway)
        api.serve(OPERATIONS, services)
        running = RunningGateway(
            gateway=gateway,
            url=server.url,
            connections=server.connections,
            api=api,
            service=service,
            jobs=jobs_api,
            direct=direct,
        )
        if extension is not None:
            await stack.enter_async_context(extension(running))
        await run_events.start()
        await service.start()
        await server.start(api)
        bus.http_url = server.url
        try:
            yield running
        finally:
            bus.http_url = ""
            await service.leave()
            gateway.draining = True
            await run_events.stop()
            ending = asyncio.gather(server.stop(), chat.host.drain(settings.drain_s + GRACE_S))
            await asyncio.wait({ending}, timeout=settings.drain_s)
            if gateway.in_flight:
                log.warning("%d requests unfinished after %g s", gateway.in_flight, settings.drain_s)
                await streams.stop()  # each of them ends with an error that says why
            await ending
