"""The subjects of Orchestra as value types: built and parsed in one place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from orchestration.priority import Priority

CHAT_SUBJECT = "orchestra.chat"
"""The NATS service of gateways that answers chats."""
CHAT_CANCEL_SUBJECT = f"{CHAT_SUBJECT}.cancel"
"""Cancels the chat whose id the message holds."""
BACKLOG_SUBJECT = "placement.backlog"
"""The models of which a dispatcher has waiting generations; whoever places generations listens."""
FREED_SUBJECT = "placement.freed"
"""The id of a node on which a direct call has ended while generations of its model wait, for dispatchers: the
node itself reports its load a quarter of a second later."""
HELD_SUBJECT = "placement.held"
"""Request that every dispatcher answers: the generations that wait there, taken from a queue."""
TRACES_KEPT_SUBJECT = "telemetry.kept"
"""Ids of traces that a process has decided to keep although they were left out at first; every process that
has spans of them exports these."""
ARRIVALS_SUBJECT = "forecast.arrivals"
"""The model calls that a process has begun lately, for the dispatcher that forecasts them."""

PROCESSES_SUBJECT = "process.describe"
"""Request that every process answers: who it is, its roles and nodes, and where its metrics are."""


# what stands for a byte in a token; the other bytes stay
_ESCAPES = {
    byte: f"_{byte:02x}"
    for byte in range(256)
    if not (chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) == "-"))
}


_WORK_ID = re.compile(r"[\w-]{1,128}(\.[\w-]{1,128})?")


def is_work_id(text: str) -> bool:
    """Whether `text` has the form of the id of a generation, run or job, and so may stand in subjects."""
    return _WORK_ID.fullmatch(text) is not None


def encode_token(name: str) -> str:
    """Any name as one subject token: letters, digits and `-` stay, all else becomes `_` + hex bytes.

    Reversible: `_` itself is encoded, so `decode_token` is exact. The empty name becomes `_`.
    """
    if not name:
        return "_"
    if name.isascii() and name.replace("-", "").isalnum():
        return name
    return name.encode().decode("latin-1").translate(_ESCAPES)


def decode_token(token: str) -> str:
    """The name of a token from `encode_token`. Raises ValueError for any other text."""
    if "_" not in token:
        return token
    head, *rest = token.split("_")
    parts = [head.encode()]
    parts.extend(bytes.fromhex(part[:2]) + part[2:].encode() for part in rest)
    return b"".join(parts).decode()


@dataclass(frozen=True, slots=True)
class GenerationQueue:
    """A queue of generations, and the durable consumer that serves it."""

    priority: Priority
    model: str

    STREAM = "GENERATIONS"

    @property
    def subject(self) -> str:
        """Queue of generations, for dispatchers."""
        return f"generations.{self.priority}.{encode_token(self.model)}"

    @staticmethod
    def announcements(model: str) -> str:
        """Headers of each generation that was stored, for dispatchers; the second token is its priority."""
        return f"queued.*.{encode_token(model)}"

    @property
    def consumer(self) -> str:
        return f"generations-{self.priority}-{encode_token(self.model)}"

    @classmethod
    def parse(cls, subject: str) -> Self:
        """Raises ValueError for any other subject."""
        kind, priority, model = subject.split(".")
        if kind != "generations":
            raise ValueError(f"{subject!r} is not a generations subject")
        return cls(Priority(priority), decode_token(model))

    @classmethod
    def of_consumer(cls, name: str) -> Self:
        """The queue that the consumer of that name serves. Raises ValueError for any other consumer."""
        kind, _, rest = name.partition("-")
        priority, _, model = rest.partition("-")
        if kind != "generations":
            raise ValueError(f"{name!r} does not serve generations")
        return cls(Priority(priority), decode_token(model))


@dataclass(frozen=True, slots=True)
class RunQueue:
    """A queue of runs, and the durable consumer of its priority."""

    priority: Priority
    pattern: str
    caller: str = ""

    STREAM = "RUNS"

    @property
    def subject(self) -> str:
        """Queue of runs and jobs, for coordinators. A limited caller's jobs have one more token."""
        subject = f"runs.{self.priority}.{encode_token(self.pattern)}"
        return f"{subject}.{encode_token(self.caller)}" if self.caller else subject

    @staticmethod
    def of_caller(caller: str) -> str:
        """Filter for the queued jobs of one caller."""
        return f"runs.*.*.{encode_token(caller)}"

    @staticmethod
    def consumer(priority: Priority) -> str:
        return f"runs-{priority}"


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """The subjects of the stream of one generation or run.

    The id has two tokens, `<client>.<number>`, so a client receives all its streams on one subscription.
    """

    id: str

    REPLAYS = "stream_replay.*.*"

    @property
    def subject(self) -> str:
        """Events of one generation or run, from its writer to its client."""
        return f"stream.{self.id}"

    @property
    def cancel(self) -> str:
        """The client no longer wants the answer."""
        return f"cancel.{self.id}"

    @property
    def handoff(self) -> str:
        """Request for what the client has read so far; its reply lets another writer continue."""
        return f"stream_handoff.{self.id}"

    @property
    def replay(self) -> str:
        """Request of the client to send the events again, from the number in the message."""
        return f"stream_replay.{self.id}"

    @staticmethod
    def of_client(client: str) -> str:
        """Subscription of a client to all its streams."""
        return f"stream.{client}.*"

    @classmethod
    def parse(cls, subject: str) -> Self:
        """Raises ValueError for any other subject."""
        kind, client, number = subject.split(".")
        if kind not in ("stream", "cancel", "stream_handoff", "stream_replay"):
            raise ValueError(f"{subject!r} is not the subject of a stream")
        return cls(f"{client}.{number}")


@dataclass(frozen=True, slots=True)
class RunAddress:
    """The subjects of the events of one run, whose id is `<client>.<number>`."""

    id: str

    REPLAYS = "events.replay.*.*"

    @property
    def events(self) -> str:
        """Events of one run, for all subscribers."""
        return f"events.run.{self.id}"

    @property
    def replay(self) -> str:
        """Request for the events of a run so far."""
        return f"events.replay.{self.id}"

    @classmethod
    def of_replay(cls, subject: str) -> Self:
        """Raises ValueError for any other subject."""
        kind, verb, client, number = subject.split(".")
        if (kind, verb) != ("events", "replay"):
            raise ValueError(f"{subject!r} is not the subject of a replay")
        return cls(f"{client}.{number}")


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """The subjects of one node."""

    id: str

    @property
    def generate(self) -> str:
        """Request to the node to run a generation."""
        return f"node.{encode_token(self.id)}.generate"

    @property
    def drain(self) -> str:
        """Request to the node to take no new work and to end."""
        return f"node.{encode_token(self.id)}.drain"

    @property
    def load(self) -> str:
        """Request to the node to load a model into memory."""
        return f"node.{encode_token(self.id)}.load"

    @property
    def unload(self) -> str:
        """Request to the node to unload a model from memory."""
        return f"node.{encode_token(self.id)}.unload"

    @property
    def pin(self) -> str:
        """Request to the node to keep a model in memory, or no longer."""
        return f"node.{encode_token(self.id)}.pin"

    @property
    def label(self) -> str:
        """Request to the node to change its labels."""
        return f"node.{encode_token(self.id)}.label"

    @property
    def pull(self) -> str:
        """Request to the node to download a model and to offer it."""
        return f"node.{encode_token(self.id)}.pull"

    @property
    def pulls(self) -> str:
        """Request for the downloads of the node and their progress."""
        return f"node.{encode_token(self.id)}.pulls"

    @property
    def stop(self) -> str:
        """Message that ends a generation on this node: `<id> <writer>`; the first writer is empty."""
        return f"node.{encode_token(self.id)}.stop"

    @property
    def ping(self) -> str:
        """Request that the node answers at once, however busy it is."""
        return f"node.{encode_token(self.id)}.ping"


@dataclass(frozen=True, slots=True)
class AgentAddress:
    """The subjects of one agent: `agents.<verb>.orchestra.<cluster>.<name>`."""

    cluster: str
    name: str

    @property
    def prompt(self) -> str:
        """Prompt to an agent, by the Synadia Agent Protocol 0.3."""
        return f"agents.prompt.orchestra.{self.cluster}.{self.name}"

    @property
    def step(self) -> str:
        """Step of a run, which the agent does with its tools; Orchestra's addition to the protocol."""
        return f"agents.step.orchestra.{self.cluster}.{self.name}"

    @property
    def status(self) -> str:
        """Request for the agent's status, by the protocol."""
        return f"agents.status.orchestra.{self.cluster}.{self.name}"

    @property
    def heartbeat(self) -> str:
        """Heartbeat of the agent, by the protocol."""
        return f"agents.hb.orchestra.{self.cluster}.{self.name}"


@dataclass(frozen=True, slots=True)
class ProcessAddress:
    """The subjects of one process."""

    id: str

    @property
    def describe(self) -> str:
        """Request to the process to describe itself, as `process.describe` asks all."""
        return f"process.{encode_token(self.id)}.describe"

    @property
    def metrics(self) -> str:
        """Request to the process for its metrics, in Prometheus' text format."""
        return f"process.{encode_token(self.id)}.metrics"

    @property
    def left(self) -> str:
        """Message of a process that ends, with its id."""
        return f"process.{encode_token(self.id)}.left"


@dataclass(frozen=True, slots=True)
class CommandAddress:
    """The subject of a command of operators."""

    verb: str

    @property
    def subject(self) -> str:
        """Command of an operator to all processes, such as the list of runs; each part that it concerns
        answers."""
        return f"operate.{self.verb}"


@dataclass(frozen=True, slots=True)
class ExplainAddress:
    """The subject for questions about placement."""

    model: str

    SUBJECTS = "placement.explain.*"

    @property
    def subject(self) -> str:
        """Request that every dispatcher answers: how it would place a generation of the model."""
        return f"placement.explain.{encode_token(self.model)}"

    @classmethod
    def parse(cls, subject: str) -> Self:
        """Raises ValueError for any other subject."""
        kind, verb, model = subject.split(".")
        if (kind, verb) != ("placement", "explain"):
            raise ValueError(f"{subject!r} is not a subject of placement")
        return cls(decode_token(model))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSubject:
    """The subject of an event of the central log, or with `*` for an unknown field a filter for events.

    The fields that have few values come first, so that the server finds the events of a run without a look at
    every other run; the `shard` of a trace does the same for traces. Each event has a subject of its own, by
    its `mark`: the server then lists the events of a run by its index of subjects. Names are shortened to
    `MAX_CHARACTERS`, so readers compare the event too.
    """

    level: str = ""
    kind: str = ""
    caller: str = ""
    run: str = ""
    trace: str = ""
    mark: str = ""

    STREAM = "LOGS"
    CONSUMER = "log-shipper"
    ALL = "logs.>"
    MAX_CHARACTERS = 64

    @property
    def subject(self) -> str:
        """Events with exactly these fields; an empty one is `-`."""
        mark = self._token(self.mark) or "-"
        return f"logs.{self.head}.{self.story}.{mark}"

    @property
    def head(self) -> str:
        """The part of the subject up to the caller, which many events have in common."""
        return ".".join(self._token(each) or "-" for each in (self.level, self.kind, self.caller))

    @property
    def story(self) -> str:
        """The part of the subject from the shard to the trace, which the events of a run have in common."""
        return ".".join(self._token(each) or "-" for each in (self.shard, self.run, self.trace))

    @property
    def filter(self) -> str:
        """Events with these fields; an empty one is any."""
        return f"logs.{'.'.join(self._token(each) or '*' for each in self._fields())}"

    @property
    def shard(self) -> str:
        """One of 32 values that the trace decides; '' without a trace."""
        try:
            return f"{int(self.trace[:2], 16) >> 3:x}" if self.trace else ""
        except ValueError:
            return "x"

    def _fields(self) -> tuple[str, ...]:
        return self.level, self.kind, self.caller, self.shard, self.run, self.trace, self.mark

    def _token(self, name: str) -> str:
        return encode_token(name[: self.MAX_CHARACTERS]) if name else ""


@dataclass(frozen=True, slots=True)
class MessageTraceAddress:
    """The subject on which NATS servers tell one process what they did with the messages that it sent."""

    process: str
    """A random name, so that nobody else sends there by mistake."""

    @property
    def subject(self) -> str:
        """What a NATS server did with a message of a traced request, for the process that sent it."""
        return f"trace.nats.{self.process}"
