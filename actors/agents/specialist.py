"""An agent with a role: it makes generations of what it is asked, with its prompt, profile and model."""

from __future__ import annotations

from actors.agents.agent import Agent, AgentIdentity
from actors.agents.messages import AgentAsked, AskAgent, Prompt
from actors.bus.bus import Bus
from actors.bus.jetstream import enqueue
from actors.bus.subjects import GenerationQueue
from actors.cluster.registry import Registry
from actors.runtime.envelope import current_envelope
from actors.streams.client import ID_HEADER, Asker
from actors.telemetry.telemetry import traceparent
from orchestration.messages import ChatMessage, Generation, Run
from orchestration.placement import NEEDS_HEADER, needs_of
from orchestration.roles import Role, choose_model
from orchestration.small_models import is_small

MESSAGE_ID = "Nats-Msg-Id"
"""JetStream stores a message with an id it has seen lately no second time."""


class Specialist(Agent):
    """One of any number of replicas of a role.

    A step of a run is put on the queue with the asker's own id: the node streams to the asker straight,
    and a specialist that dies afterwards takes nothing with it.
    """

    def __init__(
        self, role: Role, bus: Bus, asker: Asker, registry: Registry, identity: AgentIdentity
    ) -> None:
        super().__init__(bus, asker, identity)
        self.role = role
        self.registry = registry

    def generation(self, ask: AskAgent) -> Generation:
        """What the model is to do. Raises what `choose_model` raises."""
        cards = self.registry.cards
        card = self.registry.card(ask.model) if ask.model is not None else None
        if ask.model is not None and card is not None:  # a fallback may answer for it
            cards = cards | {ask.model: card}
        model = choose_model(ask.model, self.role.models, cards, self.registry.known)
        small = is_small(cards[model])
        return Generation(
            id=ask.id,
            model=model,
            messages=self.role.before(ask.messages, small=small),
            sampling=ask.sampling.over(self.role.sampling_of(small=small)),
            guide=ask.guide,
            priority=ask.priority,
            labels=ask.labels,
            extra=ask.extra,
            prefix=ask.prefix,
            prefix_tokens=ask.prefix_tokens,
        )

    def work(self, prompt: Prompt) -> Generation | Run:
        said = (ChatMessage(role="user", content=prompt.text),)
        return self.generation(AskAgent(id=self.asker.new_id(), messages=said))

    async def on_ask(self, message: AskAgent) -> AgentAsked:
        """Put the step on the queue of its model. Raises `QueueFull` too."""
        generation = self.generation(message)
        envelope = current_envelope.get()
        headers = envelope.with_trace(traceparent(envelope.trace)).headers()
        headers[ID_HEADER] = headers[MESSAGE_ID] = generation.id
        headers[NEEDS_HEADER] = needs_of(generation).encoded()
        subject = GenerationQueue(generation.priority, generation.model).subject
        await enqueue(self.bus, subject, generation.model_dump_json(exclude_defaults=True).encode(), headers)
        return AgentAsked(model=generation.model)


class Researcher(Specialist):
    """A specialist with documents: a prompt becomes a run of `research`, which looks things up first and
    names its sources. Its steps of other runs it does like all."""

    def work(self, prompt: Prompt) -> Run:
        said = (ChatMessage(role="user", content=prompt.text),)
        return Run(id=self.asker.new_id(), pattern="research", messages=said)
