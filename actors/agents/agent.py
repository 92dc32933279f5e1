"""What all agents have in common: they take prompts of the Synadia Agent Protocol and show that they live."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from opentelemetry.trace import SpanKind

from actors.agents.messages import ACK, AskStatus, Heartbeat, Prompt, PromptChunk
from actors.agents.model_client import start_agent_span
from actors.agents.protocol import heartbeat
from actors.bus.bus import Bus
from actors.bus.subjects import AgentAddress
from actors.runtime.actor import Actor
from actors.runtime.envelope import current_envelope
from actors.streams.client import StreamClient
from orchestration.errors import BusUnavailable
from orchestration.messages import Progress, TextDelta, Work

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """Which agent this is on the bus. `instance` is the id of its service, one for each process."""

    address: AgentAddress
    instance: str
    heartbeat_s: int

    def heartbeat(self) -> Heartbeat:
        return heartbeat(self.address.cluster, self.address.name, self.instance, self.heartbeat_s)


class Agent(Actor):
    """Answers prompts and says that it lives. A subclass makes work of a prompt.

    Handlers wait for nodes most of their time, so many run at once; the queues bound the work.
    """

    concurrency = 256
    mailbox_size = 256

    def __init__(self, bus: Bus, streams: StreamClient, identity: AgentIdentity) -> None:
        self.bus = bus
        self.streams = streams
        self.identity = identity
        self._beating: asyncio.Task[None] | None = None

    async def started(self) -> None:
        self._beating = self.run_loop(self._beat())

    async def stopped(self) -> None:
        if self._beating is not None:
            self._beating.cancel()

    @abstractmethod
    def work(self, prompt: Prompt) -> Work:
        """What to put on a queue for `prompt`. Raises an `OrchestraError` when nothing can serve it."""

    async def on_prompt(self, prompt: Prompt) -> AsyncIterator[PromptChunk]:
        """Acknowledge at once, then stream. A caller that leaves cancels the work."""
        envelope = current_envelope.get()
        name = self.identity.address.name
        work = self.work(prompt)
        yield ACK
        with start_agent_span(name, envelope.trace, kind=SpanKind.SERVER) as span:
            envelope = envelope.with_trace(span.traceparent or envelope.trace)
            async with aclosing(self.streams.stream(work, envelope)) as events:
                async for event in events:
                    if isinstance(event, TextDelta) and event.text:
                        yield PromptChunk(type="response", data=event.text)
                    elif isinstance(event, Progress):
                        yield PromptChunk(type="progress", data=event.text)

    async def on_status(self, message: AskStatus) -> Heartbeat:
        return self.identity.heartbeat()

    async def _beat(self) -> None:
        subject = self.identity.address.heartbeat
        while True:
            try:
                await self.bus.publish(subject, self.identity.heartbeat().model_dump_json().encode())
            except BusUnavailable as error:
                log.debug("no heartbeat of %s: %s", self.identity.address.name, error)
            await asyncio.sleep(self.identity.heartbeat_s)
