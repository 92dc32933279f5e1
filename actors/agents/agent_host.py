"""All agents of one process: started together, drained in an order that lets what was begun finish."""

from __future__ import annotations

import asyncio
from dataclasses import replace

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
from actors.agents.services import AgentOptions, AgentServices
from actors.agents.settings import AgentsSettings
from actors.agents.specialist import Researcher, Specialist
from actors.agents.step_agent import StepAgent
from actors.bus.bus import Bus
from actors.bus.subjects import AgentAddress
from actors.cluster.registry import Registry
from actors.jobs.settings import JobsSettings
from actors.learning.tuner import Tuner
from actors.placement.direct import DirectPath
from actors.placement.settings import PlacementSettings
from actors.runtime.actor_host import ActorRef
from actors.runtime.service import Endpoint, Service, ServiceInfo, decode_model
from actors.runtime.system import ActorSystem
from actors.streams.client import StreamClient
from actors.tools.registry import ToolRegistry
from orchestration.patterns import COORDINATOR, StepRequest
from orchestration.roles import Role, load_roles

RESEARCH = "research"
STEPS_SERVICE = "orchestra-agents"
"""The service of the `step` endpoints, one for each role that has tools here."""
READY_POLL_S = 2.0
"""Pause between two looks for tools that come later, such as documents that are added."""


class AgentHost:
    """The six agents and the coordinator's consumer of runs."""

    def __init__(
        self, bus: Bus, settings: AgentsSettings, system: ActorSystem, options: AgentOptions
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.system = system
        self.options = options
        embedder, roles = options.embedder, load_roles(settings.roles)
        self.tools = (
            ToolRegistry(settings.tools) if options.build_tools is None else options.build_tools(embedder)
        )
        registry = options.registry or Registry(bus, options.placement.fallbacks)
        self.direct = DirectPath(bus, registry, options.placement)
        self.services = AgentServices(
            bus=bus,
            streams=StreamClient(bus, direct=self.direct),
            registry=registry,
            roles=roles,
            descriptions={name: role.description for name, role in roles.items()},
            settings=settings,
            tuner=Tuner(bus, settings.auto),
            tools=self.tools,
            embedder=embedder,
            catalogue=options.catalogue,
        )
        self.coordinator: ActorRef | None = None
        self.agents: list[ActorRef] = []
        self.run_consumer: RunConsumer | None = None
        self.steps = Service(
            bus,
            ServiceInfo(name=STEPS_SERVICE, version=__version__, description="Steps of runs that need tools"),
        )
        self.prompts: list[Service] = []
        self._opening: list[asyncio.Task[None]] = []

    def update_settings(self, settings: AgentsSettings) -> None:
        """Use other settings for runs, steps and prompts that begin from now on."""
        self.settings = settings
        roles = load_roles(settings.roles)
        self.services = services = replace(
            self.services,
            settings=settings,
            roles=roles,
            descriptions={name: role.description for name, role in roles.items()},
        )
        services.tuner.update_settings(settings.auto)
        self.tools.settings = settings.tools
        for ref in (self.coordinator, *self.agents):
            actor = None if ref is None else ref.host.actor
            if isinstance(actor, Coordinator | StepAgent):
                actor.services = services
            elif isinstance(actor, Specialist):
                actor.role = services.roles[actor.role.name]
        if self.run_consumer is not None:
            self.run_consumer.update_settings(settings)

    def update_jobs(self, settings: JobsSettings) -> None:
        """Use other settings for attempts that begin or end from now on."""
        if self.run_consumer is not None:
            self.run_consumer.jobs = self.run_consumer.job_attempts.settings = settings

    def update_placement(self, settings: PlacementSettings) -> None:
        """Use other settings for generations from now on."""
        self.direct.update_settings(settings)

    async def start(self) -> None:
        """Raises `BusUnavailable` when the buckets and streams are not there."""
        services = self.services
        await services.streams.start()
        await services.registry.start()
        await services.tuner.start()
        await self.steps.start()
        for role in services.roles.values():
            await self._spawn(role)
            if role.name in self.tools.roles:
                await self._serve_steps(role.name)
        self.coordinator = await self.system.spawn(Coordinator, lambda: Coordinator(self.services))
        self.run_consumer = RunConsumer(
            self.bus,
            self.coordinator,
            self.settings,
            self.options.jobs,
            services.catalogue,
            services.registry.orders,
        )
        await self.run_consumer.start()
        await self.bus.flush()

    async def _spawn(self, role: Role) -> None:
        cluster, services = self.settings.cluster, self.services
        address = AgentAddress(cluster, role.name)
        service = Service(self.bus, service_info(cluster, role.name, role.description))
        identity = AgentIdentity(address=address, instance=service.id, heartbeat_s=self.settings.heartbeat_s)
        kind: type[Specialist] = CoordinatorAgent if role.name == COORDINATOR else Specialist
        if role.name == RESEARCH and role.name in self.tools.roles:
            kind = Researcher

        def make() -> Specialist:
            return kind(
                self.services.roles[role.name], self.bus, services.streams, services.registry, identity
            )

        ref: ActorRef = await self.system.spawn(kind, make, name=f"agent {role.name}")
        self.agents.append(ref)
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

    async def _serve_steps(self, role: str) -> None:
        """Do steps that need the role's tools, as soon as there are any: an agent without tools must not take
        a step from one that has some."""
        ref: ActorRef = await self.system.spawn(
            StepAgent, lambda: StepAgent(role, self.services), name=f"steps of {role}"
        )
        self.agents.append(ref)
        if self.tools.ready(role):
            await self._open(role, ref)
        else:
            self._opening.append(asyncio.get_running_loop().create_task(self._open(role, ref)))

    async def _open(self, role: str, ref: ActorRef) -> None:
        while not self.tools.ready(role):  # noqa: ASYNC110 - a new file raises no event
            await asyncio.sleep(READY_POLL_S)
        await self.steps.add(
            Endpoint(
                name=f"step-{role}",
                subject=AgentAddress(self.settings.cluster, role).step,
                ref=ref,
                decode=decode_model(StepRequest),
                queue=SERVICE,
                streams=True,
            )
        )

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
        for opening in self._opening:
            opening.cancel()
        await self.steps.leave()
        for ref in self.agents:
            clean = await ref.host.drain(self._left(end)) and clean
        await self.tools.close()
        await self.services.registry.stop()
        await self.services.streams.stop()
        await self.services.tuner.stop()
        if self.services.embedder is not None:
            self.services.embedder.close()
        return clean

    @staticmethod
    def _left(end: float) -> float:
        return max(0.0, end - asyncio.get_running_loop().time())
