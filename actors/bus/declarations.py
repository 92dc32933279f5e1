"""The declarations in nats/streams.yaml: streams, consumers and buckets, and their form in JetStream's API.

Pure but for `load` and `shipped_declaration`, which read the file. Times are in seconds and sizes in MiB or
KiB here; `config` gives nanoseconds and bytes. `actors.bus.drift` compares a declaration with a server, and
`actors.bus.provision` applies it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from actors.installation.data_files import data_folder
from orchestration.priority import Priority

Config = dict[str, Any]
"""The configuration of one stream or consumer, as JetStream's API writes it."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Seconds = Annotated[float, Field(gt=0)]
Storage = Literal["file", "memory"]

_NS = 1_000_000_000
_MIB = 2**20


class StrictModel(BaseModel):
    """Base of all declarations: frozen, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ConsumerDeclaration(StrictModel):
    """A durable pull consumer with explicit acks. A `{word}` in its name makes it a template."""

    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-]|\{[a-z]+\})+$")]
    filter: str
    ack_wait_s: Seconds
    max_deliver: int = Field(ge=1)
    max_ack_pending: int = Field(ge=1)
    inactive_after_s: Seconds | None = None
    """The server deletes it after this long without a pull; None keeps it for ever."""

    @model_validator(mode="after")
    def _same_words(self) -> Self:
        if set(re.findall(r"\{(\w+)\}", self.name)) != set(re.findall(r"\{(\w+)\}", self.filter)):
            raise ValueError(f"consumer {self.name!r} and its filter {self.filter!r} name different words")
        return self

    @property
    def is_template(self) -> bool:
        return "{" in self.name

    def filled(self, **words: str) -> ConsumerDeclaration:
        """A copy with each given `{word}` replaced in the name and in the filter; other words stay."""
        name, subject = self.name, self.filter
        for word, value in words.items():
            name, subject = name.replace(f"{{{word}}}", value), subject.replace(f"{{{word}}}", value)
        return self.model_copy(update={"name": name, "filter": subject})

    def instantiate(self, name: str) -> ConsumerDeclaration | None:
        """This template filled so that its name is `name`; None when no words do that."""
        pattern = re.sub(r"\\\{([a-z]+)\\\}", r"(?P<\1>[A-Za-z0-9_-]+)", re.escape(self.name))
        match = re.fullmatch(pattern, name)
        return self.filled(**match.groupdict()) if match else None

    def config(self) -> Config:
        return {
            "name": self.name,
            "durable_name": self.name,
            "filter_subject": self.filter,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": round(self.ack_wait_s * _NS),
            "max_deliver": self.max_deliver,
            "max_ack_pending": self.max_ack_pending,
            "inactive_threshold": round((self.inactive_after_s or 0) * _NS),
        }


class StreamDeclaration(StrictModel):
    """A stream and its consumers, templates included."""

    name: Name
    description: str = ""
    subjects: tuple[str, ...] = Field(min_length=1)
    retention: Literal["workqueue", "limits", "interest"]
    storage: Storage
    discard: Literal["new", "old"]
    discard_new_per_subject: bool = False
    max_messages: int | None = Field(default=None, ge=1)
    max_messages_per_subject: int | None = Field(default=None, ge=1)
    max_mib: int = Field(ge=1)
    max_age_s: Seconds | None = None
    duplicate_window_s: Seconds
    max_consumers: int | None = Field(default=None, ge=1)
    """None: what the server allows, which is 1000 with nats-server 2.15."""
    announced: bool = False
    """Headers of each stored message are published again, as `queued.<subject>` without its first token."""
    consumers: tuple[ConsumerDeclaration, ...] = ()

    @model_validator(mode="after")
    def _bounded_per_subject(self) -> Self:
        bounded = self.discard == "new" and self.max_messages_per_subject is not None
        if self.discard_new_per_subject and not bounded:
            raise ValueError("discard_new_per_subject needs discard: new and max_messages_per_subject")
        return self

    def fixed_consumers(self) -> Iterator[ConsumerDeclaration]:
        """The consumers that are created at once: one per priority where the name has `{priority}`."""
        return (each for each in self._per_priority() if not each.is_template)

    def consumer(self, name: str) -> ConsumerDeclaration | None:
        """The consumer called `name`, possibly from a template; None when none is declared."""
        made = (each.instantiate(name) for each in self._per_priority())
        return next((each for each in made if each is not None), None)

    def _per_priority(self) -> Iterator[ConsumerDeclaration]:
        for consumer in self.consumers:
            if "{priority}" in consumer.name:
                yield from (consumer.filled(priority=priority.value) for priority in Priority)
            else:
                yield consumer

    def config(self, *, replicas: int) -> Config:
        announced = {"src": self.subjects[0], "dest": "queued.>", "headers_only": True}
        return ({"republish": announced} if self.announced else {}) | {
            "name": self.name,
            "description": self.description,
            "subjects": list(self.subjects),
            "retention": self.retention,
            "storage": self.storage,
            "discard": self.discard,
            "discard_new_per_subject": self.discard_new_per_subject,
            "max_msgs": self.max_messages or -1,
            "max_consumers": self.max_consumers or -1,
            "max_msgs_per_subject": self.max_messages_per_subject or -1,
            "max_bytes": self.max_mib * _MIB,
            "max_age": round((self.max_age_s or 0) * _NS),
            "duplicate_window": round(self.duplicate_window_s * _NS),
            "num_replicas": replicas,
            "allow_direct": True,
        }


class BucketDeclaration(StrictModel):
    """A key-value bucket, which is a stream `KV_<name>` (JetStream's ADR-8)."""

    name: Name
    description: str = ""
    storage: Storage
    ttl_s: Seconds | None = None
    """The server deletes an entry this long after it was written; None keeps it."""
    history: int = Field(default=1, ge=1, le=64)
    max_mib: int = Field(ge=1)
    max_value_kib: int = Field(ge=1)
    discard: Literal["new", "old"] = "new"
    """A full bucket refuses a write (new), which its writer sees, or drops its oldest entry (old)."""
    watched: bool = False
    """Writes are published again, once stored, as `watch.<name>.<key>` with their sequence."""

    @property
    def stream(self) -> str:
        return f"KV_{self.name}"

    def config(self, *, replicas: int) -> Config:
        ttl = round((self.ttl_s or 0) * _NS)
        source, to = f"$KV.{self.name}.>", f"watch.{self.name}.>"
        republish = {"republish": {"src": source, "dest": to}} if self.watched else {}
        return republish | {
            "name": self.stream,
            "description": self.description,
            "subjects": [f"$KV.{self.name}.>"],
            "retention": "limits",
            "storage": self.storage,
            "discard": self.discard,
            "max_msgs": -1,
            "max_msgs_per_subject": self.history,
            "max_bytes": self.max_mib * _MIB,
            "max_msg_size": self.max_value_kib * 1024,
            "max_age": ttl,
            # the server refuses a window longer than the age
            "duplicate_window": min(120 * _NS, ttl or 120 * _NS),
            "num_replicas": replicas,
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
        }


class Declaration(StrictModel):
    """All of streams.yaml."""

    streams: tuple[StreamDeclaration, ...] = ()
    buckets: tuple[BucketDeclaration, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [stream.name for stream in self.streams] + [bucket.stream for bucket in self.buckets]
        names += [consumer.name for stream in self.streams for consumer in stream.consumers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"declared more than once: {', '.join(twice)}")
        return self

    @classmethod
    def parse(cls, text: str) -> Declaration:
        """Raises `ValueError` that names the field (pydantic's) or the line (YAML's)."""
        try:
            return cls.model_validate(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ValueError(f"not YAML: {error}") from error

    def stream(self, name: str) -> StreamDeclaration:
        """Raises `KeyError`."""
        for stream in self.streams:
            if stream.name == name:
                return stream
        raise KeyError(f"no stream {name!r} is declared")

    @cached_property
    def stream_names(self) -> frozenset[str]:
        """The names of all streams, those of buckets included."""
        return frozenset((*(each.name for each in self.streams), *(each.stream for each in self.buckets)))

    @property
    def reserved_bytes(self) -> int:
        """Bytes that file streams and buckets reserve of the server's max_file_store, per replica."""
        parts: tuple[StreamDeclaration | BucketDeclaration, ...] = (*self.streams, *self.buckets)
        return sum(part.max_mib * _MIB for part in parts if part.storage == "file")


def load(path: Path | None = None) -> Declaration:
    """The declaration that Orchestra ships, or another file's. Raises `OSError` or `ValueError`."""
    return Declaration.parse((path or data_folder("nats") / "streams.yaml").read_text(encoding="utf-8"))


@cache
def shipped_declaration() -> Declaration:
    """The declaration that Orchestra ships, read once per process."""
    return load()
