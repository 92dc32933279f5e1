"""A generation that is placed on nodes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from actors.runtime.envelope import Envelope
from actors.streams.handoff import StreamOwner
from actors.telemetry.tracing import Scope
from orchestration.messages import Generation, Priority
from orchestration.placement import Needs

Work = bytes | Generation
"""A generation, in JSON where it came from a queue and was not changed."""


def encoded(work: Work) -> bytes:
    """The JSON of a generation."""
    return work if isinstance(work, bytes) else work.model_dump_json(exclude_defaults=True).encode()


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A generation between whoever accepted it and its node."""

    id: str
    model: str
    """The model that answers now: the requested one, or a fallback."""
    priority: Priority
    envelope: Envelope
    needs: Needs
    """What it needs of its node."""
    work: Work
    """The generation as it was requested."""
    reader: StreamOwner
    """The reader of its stream."""
    received_at: float = field(default_factory=time.monotonic)
    queued_s: float = 0.0
    """Seconds for which it had waited in a queue before this process received it."""
    first_sent_at: float = 0.0
    """When it went to the first node that took it, by the monotonic clock; 0: not yet."""
    attempt: int = 1
    """The number of its delivery by a queue."""
    continued: Generation | None = None
    """The generation for the next node, which continues from a prefix; None means `work`."""
    waits: bool = False
    """Whether it waits for a node in this process."""
    refusals_before: int = 0
    """The refusals by servers of its model at the time when it began to wait for that model."""
    writer: str = ""
    """The name under which the next node writes; '' for the first one."""
    cancelled: bool = False
    superseded: bool = False
    """Another process has the generation now, from a later delivery: leave it and its message alone."""
    moves: int = 0
    """The number of nodes that died or failed while they had the generation."""
    caller_is_here: bool = False
    """Whether its caller is in this process, and is lost together with it."""
    scope: Scope = field(default_factory=Scope)
    """When the generation is over for its caller, for its spans."""
    recorded_moves: set[tuple[str, str]] = field(default_factory=set)
    """Nodes that it left, with the reason, as the log has them."""
    tried: set[str] = field(default_factory=set)
    """Nodes that have or had the generation since it last waited."""

    @property
    def expired(self) -> bool:
        return 0 < self.envelope.deadline < time.time()

    @property
    def next_work(self) -> Work:
        """The generation for the next node."""
        return self.work if self.continued is None else self.continued

    def use_model(self, model: str) -> None:
        """Have `model` answer."""
        self.model, self.needs = model, replace(self.needs, model=model)
