"""The differences between a server and the declaration, and the remedy for each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from actors.bus.declarations import Config, Declaration, StreamDeclaration

Kind = Literal["stream", "consumer"]


class Remedy(StrEnum):
    """How to remove a difference. `CREATE` and `UPDATE` lose no data."""

    CREATE = "create"
    UPDATE = "update"
    RECREATE = "recreate"
    """JetStream cannot change it in place: an operator must delete it, with its messages."""
    UNDECLARED = "undeclared"
    """The server has it and it is not declared. It may belong to another program, so it stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One difference between the server and the declaration."""

    kind: Kind
    name: str
    stream: str
    """The stream itself, or the one that the consumer belongs to."""
    remedy: Remedy
    field: str = ""
    """Name of the field; '': the whole stream or consumer."""
    declared: Any = None
    """Value in the declaration."""
    actual: Any = None
    """Value at the server."""
    applied: bool = False
    """Whether the remedy was applied."""
    refusal: str = ""
    """The server's error, when it refused the change."""

    def __str__(self) -> str:
        what = f"{self.kind} {self.name}"
        if self.field:
            what += f": {self.field} is {self.actual!r}, declared {self.declared!r}"
        done = {Remedy.CREATE: "created", Remedy.UPDATE: "changed"}
        needed = {
            Remedy.CREATE: "is missing",
            Remedy.UPDATE: "to be changed",
            Remedy.RECREATE: "cannot be changed in place: delete it by hand, with its messages",
            Remedy.UNDECLARED: "is not declared; left alone",
        }
        if self.refusal:
            return f"{what}: refused by the server: {self.refusal}"
        return f"{what}: {done[self.remedy] if self.applied else needed[self.remedy]}"


@dataclass(frozen=True, slots=True)
class ServerState:
    """The configurations that a server has: of declared streams, and of their consumers."""

    streams: Mapping[str, Config] = field(default_factory=dict)
    """Streams, and the streams of buckets, by name."""
    consumers: Mapping[str, Mapping[str, Config]] = field(default_factory=dict)
    """Consumers by stream, then by name; only durable ones."""


STREAM_FIXED = frozenset({"storage", "retention"})
CONSUMER_FIXED = frozenset({"deliver_policy", "ack_policy", "replay_policy"})
"""Fields that JetStream refuses to change in place, of those that are declared."""


def diff(declared: Declaration, actual: ServerState, *, replicas: int = 1) -> list[Drift]:
    """Every difference, streams before their consumers. Empty when the server is as declared."""
    found: list[Drift] = []
    for name, config in stream_configs(declared, replicas=replicas).items():
        found += _compare("stream", name, name, config, actual.streams.get(name), STREAM_FIXED)
    for stream in declared.streams:
        found += _consumers(stream, actual.consumers.get(stream.name, {}))
    return found


def stream_configs(declared: Declaration, *, replicas: int) -> dict[str, Config]:
    """The declared configurations of streams and of buckets, by the name of the stream."""
    streams = {stream.name: stream.config(replicas=replicas) for stream in declared.streams}
    return streams | {bucket.stream: bucket.config(replicas=replicas) for bucket in declared.buckets}


def _consumers(stream: StreamDeclaration, actual: Mapping[str, Config]) -> Iterator[Drift]:
    declared = {consumer.name: consumer for consumer in stream.fixed_consumers()}
    for name in actual:
        made = stream.consumer(name)
        if made is not None:
            declared[name] = made
        else:
            yield Drift(kind="consumer", name=name, stream=stream.name, remedy=Remedy.UNDECLARED)
    for name, consumer in declared.items():
        yield from _compare(
            "consumer", name, stream.name, consumer.config(), actual.get(name), CONSUMER_FIXED
        )


def _compare(
    kind: Kind, name: str, stream: str, declared: Config, actual: Config | None, fixed: frozenset[str]
) -> Iterator[Drift]:
    if actual is None:
        yield Drift(kind=kind, name=name, stream=stream, remedy=Remedy.CREATE)
        return
    for key, value in declared.items():
        # Replicas are a minimum: a process that starts must not shrink a stream of a larger cluster.
        if key == "num_replicas" and (actual.get(key) or 1) >= value:
            continue
        # the server omits zero, false and empty values
        if (actual.get(key) or None) != (value or None):
            remedy = Remedy.RECREATE if key in fixed else Remedy.UPDATE
            yield Drift(
                kind=kind,
                name=name,
                stream=stream,
                remedy=remedy,
                field=key,
                declared=value,
                actual=actual.get(key),
            )
