"""The subjects of Orchestra as value types: built and parsed in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from orchestration.messages import Priority

CHAT_SUBJECT = "orchestra.chat"
"""The NATS service of gateways that answers chats."""
CHAT_CANCEL_SUBJECT = f"{CHAT_SUBJECT}.cancel"
"""Cancels the chat whose id the message holds."""


def encode_token(name: str) -> str:
    """Any name as one subject token: letters, digits and `-` stay, all else becomes `_` + hex bytes.

    Reversible: `_` itself is encoded, so `decode_token` is exact. The empty name becomes `_`.
    """
    if not name:
        return "_"
    plain = name.isascii() and name.replace("-", "").isalnum()
    if plain:
        return name
    return "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or byte == 0x2D) else f"_{byte:02x}"
        for byte in name.encode()
    )


def decode_token(token: str) -> str:
    """The name that `encode_token` made a token of. Raises ValueError for anything else."""
    if "_" not in token:
        return token
    head, *rest = token.split("_")
    parts = [head.encode()]
    parts.extend(bytes.fromhex(part[:2]) + part[2:].encode() for part in rest)
    return b"".join(parts).decode()


@dataclass(frozen=True, slots=True)
class GenerationQueue:
    """`generations.<priority>.<model token>`, and the durable consumer that serves it."""

    priority: Priority
    model: str

    STREAM = "GENERATIONS"

    @property
    def subject(self) -> str:
        return f"generations.{self.priority}.{encode_token(self.model)}"

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
    """`runs.<priority>.<pattern>`, and the durable consumer of that priority.

    A job of a caller whose jobs are counted has the caller's name as a last token.
    """

    priority: Priority
    pattern: str
    caller: str = ""

    STREAM = "RUNS"

    @property
    def subject(self) -> str:
        subject = f"runs.{self.priority}.{encode_token(self.pattern)}"
        return f"{subject}.{encode_token(self.caller)}" if self.caller else subject

    @staticmethod
    def of_caller(caller: str) -> str:
        """What the subjects of all jobs of a caller match."""
        return f"runs.*.*.{encode_token(caller)}"

    @staticmethod
    def consumer(priority: Priority) -> str:
        return f"runs-{priority}"


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """`stream.<client>.<number>`: the events of one generation or run.

    The last two tokens are the id of the work, so a client receives all its streams on one subscription.
    """

    id: str

    REPLAYS = "stream_replay.*.*"

    @property
    def subject(self) -> str:
        return f"stream.{self.id}"

    @property
    def cancel(self) -> str:
        """The client no longer wants the answer."""
        return f"cancel.{self.id}"

    @property
    def handoff(self) -> str:
        """Requests for what the client has read so far; its reply lets another writer go on."""
        return f"stream_handoff.{self.id}"

    @property
    def replay(self) -> str:
        """The client asks the writer to send its events again, from the number in the message on."""
        return f"stream_replay.{self.id}"

    @staticmethod
    def of_client(client: str) -> str:
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
    """`events.run.<client>.<number>`: the events of one run, for anyone who subscribes."""

    id: str

    REPLAYS = "events.replay.*.*"

    @property
    def events(self) -> str:
        return f"events.run.{self.id}"

    @property
    def replay(self) -> str:
        """Requests for the events before the subscription; see `actors.agents.run_event_history`."""
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
    """Subjects under which one node is spoken to."""

    id: str

    @property
    def generate(self) -> str:
        return f"node.{encode_token(self.id)}.generate"

    @property
    def drain(self) -> str:
        return f"node.{encode_token(self.id)}.drain"

    @property
    def load(self) -> str:
        """Brings a model into the node's memory."""
        return f"node.{encode_token(self.id)}.load"

    @property
    def unload(self) -> str:
        return f"node.{encode_token(self.id)}.unload"

    @property
    def stop(self) -> str:
        """Ends a generation on this node alone: `<id> <writer>`, the writer empty for the first one."""
        return f"node.{encode_token(self.id)}.stop"

    @property
    def ping(self) -> str:
        """Answered at once while the node lives, however busy it is."""
        return f"node.{encode_token(self.id)}.ping"


@dataclass(frozen=True, slots=True)
class AgentAddress:
    """An agent of the Synadia Agent Protocol 0.3: `agents.<verb>.orchestra.<cluster>.<name>`."""

    cluster: str
    name: str

    @property
    def prompt(self) -> str:
        return f"agents.prompt.orchestra.{self.cluster}.{self.name}"

    @property
    def step(self) -> str:
        """Ours, beside the protocol's: a step of a run, done where the agent's tools are."""
        return f"agents.step.orchestra.{self.cluster}.{self.name}"

    @property
    def status(self) -> str:
        return f"agents.status.orchestra.{self.cluster}.{self.name}"

    @property
    def heartbeat(self) -> str:
        return f"agents.hb.orchestra.{self.cluster}.{self.name}"


@dataclass(frozen=True, slots=True)
class ExplainAddress:
    """`placement.explain.<model token>`: every dispatcher answers how it would place a generation."""

    model: str

    SUBJECTS = "placement.explain.*"

    @property
    def subject(self) -> str:
        return f"placement.explain.{encode_token(self.model)}"

    @classmethod
    def parse(cls, subject: str) -> Self:
        """Raises ValueError for any other subject."""
        kind, verb, model = subject.split(".")
        if (kind, verb) != ("placement", "explain"):
            raise ValueError(f"{subject!r} asks for no explanation")
        return cls(decode_token(model))
