"""An agent with a role: it answers prompts with its prompt, parameters and model."""

from __future__ import annotations

from actors.agents.agent import Agent, AgentIdentity
from actors.agents.messages import Prompt
from actors.agents.role_generation import role_generation
from actors.bus.bus import Bus
from actors.cluster.registry import Registry
from actors.streams.client import StreamClient
from orchestration.messages import ChatMessage, Priority, Run, Sampling, Work
from orchestration.patterns import GenerationRequest
from orchestration.roles import Role


class Specialist(Agent):
    """One of any number of replicas of a role. A prompt becomes one generation."""

    def __init__(
        self, role: Role, bus: Bus, streams: StreamClient, registry: Registry, identity: AgentIdentity
    ) -> None:
        super().__init__(bus, streams, identity)
        self.role = role
        self.registry = registry

    def work(self, prompt: Prompt) -> Work:
        request = GenerationRequest(
            name="prompt",
            agent=self.role.name,
            messages=(ChatMessage(role="user", content=prompt.text),),
            sampling=Sampling(),
            guide=None,
            model=None,
            priority=Priority.INTERACTIVE,
            labels={},
        )
        return role_generation(self.role, request, self.registry, self.streams.new_id())


class Researcher(Specialist):
    """A specialist with documents: a prompt becomes a run of `research`, which looks things up first and
    names its sources."""

    def work(self, prompt: Prompt) -> Run:
        messages = (ChatMessage(role="user", content=prompt.text),)
        return Run(id=self.streams.new_id(), pattern="research", messages=messages)
