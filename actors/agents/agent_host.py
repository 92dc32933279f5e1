"""All agents of one process: started together, drained in an order that lets what was begun finish."""

from __future__ import annotations

import asyncio

from actors import __version__
from actors.agents.agent import AgentIdentity
from actors.agents.coordinator import Coordinator, CoordinatorAgent
from actors.agents.protocol import (
    SERVICE,
    decode_prompt,
    decode_status,
    prompt_metadata,
    service_info,
)
from actors.agents.run_consumer import RunConsumer
from actors.agents.settings import AgentsSettings
from actors.agents.specialist import Researcher, Specialist
from actors.bus.bus import Bus
from actors.bus.subjects import AgentAddress
from actors.cluster.registry import NO_FALLBACKS, Fallbacks, Registry
from actors.embedding.embedder import Embedder
from actors.jobs.settings import JobsSettings
from actors.learning.tuner import Tuner
from actors.runtime.actor_host import ActorRef
from actors.runtime.service import Endpoint, Service, ServiceInfo
from actors.runtime.system import ActorSystem
from actors.streams.client import StreamClient
from actors.tools.registry import ToolRegistry
from actors.tools.server import Workbench, endpoints
from orchestration.patterns import BUILT_IN, COORDINATOR, Catalogue
from orchestration.roles import Role, load_roles

RESEARCH = "research"
STEPS_SERVICE = "orchestra-agents"
"""The service of the `ask` endpoints, one for each role."""
READY_POLL_S = 2.0
"""Between two looks whether there are tools now, such as documents that were added."""


class AgentHost:
    """The six agents and the coordinator's consumer of runs."""

    def __init__(
        self,
        bus: Bus,
        settings: AgentsSettings,
        system: ActorSystem,
        jobs: JobsSettings | None = None,
        fallbacks: Fallbacks = NO_FALLBACKS,
        embedder: Embedder | None = None,
        tools: ToolRegistry | None = None,
        catalogue: Catalogue = BUILT_IN,
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.jobs = jobs or JobsSettings()
        self.roles = load_roles(settings.roles)
        self.streams = StreamClient(bus)
        self.registry = Registry(bus, fallbacks)
        self.embedder = embedder
        self.tuner = Tuner(bus, settings.auto)
        self.tools = tools or ToolRegistry(settings.tools)
        self.catalogue = catalogue
        self.system = system
        self.coordinator: ActorRef | None = None
        self.specialists: list[ActorRef] = []
        self.benches: list[ActorRef] = []
        self._offers: list[asyncio.Task[None]] = []
        self.run_consumer: RunConsumer | None = None
        self.steps = Service(
            bus,
            ServiceInfo(name=STEPS_SERVICE, version=__version__, description="The steps of runs, by role"),
        )
        self.prompts: list[Service] = []

    async def start(self) -> None:
        """Raises `BusUnavailable` when the buckets and streams are not there."""
        await self.streams.start()
        await self.registry.start()
        await self.tuner.start()
        await self.steps.start()
        for role in self.roles.values():
            await self._spawn(role)
            if role.name in self.tools.roles:
                await self._equip(role)
        self.coordinator = await self.system.spawn(
            Coordinator,
            lambda: Coordinator(
                self.bus,
                self.streams,
                self.registry,
                self.roles,
                self.settings,
                self.embedder,
                self.tuner,
                self.catalogue,
            ),
        )
        self.run_consumer = RunConsumer(self.bus, self.coordinator, self.settings, self.jobs, self.catalogue)
        await self.run_consumer.start()
        await self.bus.flush()

    async def _spawn(self, role: Role) -> None:
        cluster = self.settings.cluster
        address = AgentAddress(cluster, role.name)
        service = Service(self.bus, service_info(cluster, role.name, role.description))
        identity = AgentIdentity(address=address, instance=service.id, heartbeat_s=self.settings.heartbeat_s)
        kind: type[Specialist] = CoordinatorAgent if role.name == COORDINATOR else Specialist
        if role.name == RESEARCH and role.name in self.tools.roles:
            kind = Researcher

        def make() -> Specialist:
            return kind(role, self.bus, self.streams, self.registry, identity)

        ref: ActorRef = await self.system.spawn(kind, make, name=f"agent {role.name}")
        self.specialists.append(ref)
        await service.start()
        self.prompts.append(service)
        await service.add(
            Endpoint(
                name="prompt",
                subject=address.prompt,
                ref=ref,
                decode=decode_prompt,
                queue=SERVICE,
                metadata=prompt_metadata(self.bus.max_payload),
                streams=True,
            )
        )
        await service.add(
            Endpoint(
                name="status",
                subject=address.status,
                ref=ref,
                decode=decode_status,
                queue=SERVICE,
                streams=False,
            )
        )

    async def _equip(self, role: Role) -> None:
        """Let others use the role's tools here."""

        def make() -> Workbench:
            return Workbench(role.name, self.tools)

        ref: ActorRef = await self.system.spawn(Workbench, make, name=f"tools of {role.name}")
        self.benches.append(ref)
        if self.tools.ready(role.name):
            await self._offer(role, ref)
        else:
            self._offers.append(asyncio.get_running_loop().create_task(self._offer(role, ref)))

    async def _offer(self, role: Role, ref: ActorRef) -> None:
        """Listen for those who use the role's tools, as soon as there can be any: nobody who has none should
        answer for one who has."""
        while not self.tools.ready(role.name):  # noqa: ASYNC110 - a file tells nobody that it has come
            await asyncio.sleep(READY_POLL_S)
        for endpoint in endpoints(AgentAddress(self.settings.cluster, role.name), ref, SERVICE):
            await self.steps.add(endpoint)

    async def drain(self) -> bool:
        """Take nothing new, finish what was begun within `drain_timeout_s`, then leave. True when nothing
        was cut off.

        Runs need the specialists, on this machine perhaps, so those stay until the runs are done.
        """
        end = asyncio.get_running_loop().time() + self.settings.drain_timeout_s
        for service in self.prompts:
            await service.leave()
        if self.run_consumer is not None:
            await self.run_consumer.leave()
        clean = True
        if self.coordinator is not None:
            clean = await self.coordinator.host.drain(self._left(end))
        if self.run_consumer is not None:
            await self.run_consumer.stop()
        for offer in self._offers:
            offer.cancel()
        await self.steps.leave()
        for ref in (*self.specialists, *self.benches):
            clean = await ref.host.drain(self._left(end)) and clean
        await self.tools.close()
        await self.registry.stop()
        await self.streams.stop()
        await self.tuner.stop()
        if self.embedder is not None:
            self.embedder.close()
        return clean

    @staticmethod
    def _left(end: float) -> float:
        return max(0.0, end - asyncio.get_running_loop().time())
