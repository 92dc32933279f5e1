"""How a server differs from the declaration, and what would mend each difference. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from actors.bus.declarations import Config, Declaration, StreamDeclaration

Kind = Literal["stream", "consumer"]


class Remedy(StrEnum):
    """What it takes; the first two can be done without losing anything."""

    CREATE = "create"
    UPDATE = "update"
    RECREATE = "recreate"
    """JetStream cannot change it in place: a person must delete it, with what it holds."""
    UNDECLARED = "undeclared"
    """It is there and nobody declared it; it may be another's, so it is left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One difference: a whole stream or consumer (`field` is empty), or one field of it."""

    kind: Kind
    name: str
    stream: str
    """The stream itself, or the one that the consumer belongs to."""
    remedy: Remedy
    field: str = ""
    declared: Any = None
    actual: Any = None
    applied: bool = False
    refusal: str = ""
    """Why the server would not have it, in its own words."""

    def __str__(self) -> str:
        what = f"{self.kind} {self.name}"
        if self.field:
            what += f": {self.field} is {self.actual!r}, declared {self.declared!r}"
        done = {Remedy.CREATE: "created", Remedy.UPDATE: "changed"}
        needed = {
            Remedy.CREATE: "is missing",
            Remedy.UPDATE: "to be changed",
            Remedy.RECREATE: "cannot be changed in place: delete it by hand, with what it holds",
            Remedy.UNDECLARED: "is not declared; left alone",
        }
        if self.refusal:
            return f"{what}: refused by the server: {self.refusal}"
        return f"{what}: {done[self.remedy] if self.applied else needed[self.remedy]}"


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a server has, by name: configurations of the declared streams, and of their consumers."""

    streams: Mapping[str, Config] = field(default_factory=dict)
    consumers: Mapping[str, Mapping[str, Config]] = field(default_factory=dict)
    """By stream, then by consumer; durable ones only."""


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
    wanted = {consumer.name: consumer for consumer in stream.fixed_consumers()}
    for name in actual:
        made = stream.consumer(name)
        if made is not None:
            wanted[name] = made
        else:
            yield Drift(kind="consumer", name=name, stream=stream.name, remedy=Remedy.UNDECLARED)
    for name, consumer in wanted.items():
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
        # Replicas are a least number: whoever starts must not undo what a cluster has grown to.
        if key == "num_replicas" and (actual.get(key) or 1) >= value:
            continue
        # the server leaves zero, false and empty out of its answers
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
