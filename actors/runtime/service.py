"""An actor on the bus: endpoints with typed messages, answered concurrently, in the service protocol.

Answers `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS` as the NATS micro protocol says. Unlike nats-py's own
service, whose handlers run one after another per endpoint, every request goes to the actor's mailbox,
so the actor's `concurrency` decides, and draining finishes what was admitted.

Wire: a single answer is one message. A stream is one message per value and an empty message at the end.
An error carries `Nats-Service-Error` and `Nats-Service-Error-Code` and an `ErrorBody`; in a stream the
empty message follows it. Every streamed message asks for no answer but names a probe inbox: when the
caller is gone the server reports a subject without subscribers, and the handler is cancelled.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.message import ERROR as ERROR
from actors.bus.message import ERROR_CODE as ERROR_CODE
from actors.bus.message import unix_ns
from actors.runtime.actor_host import ActorRef
from actors.runtime.envelope import Envelope
from actors.runtime.failures import UNEXPECTED_ERRORS, internal_error
from actors.runtime.handlers import handlers
from actors.runtime.invocation import Invocation
from orchestration.errors import InvalidRequest, OrchestraError, PayloadTooLarge
from orchestration.validation import first_problem

log = logging.getLogger(__name__)

CALLER_LEFT = b"caller left"
"""What a caller sends to the reply subject of a stream's message, when it wants no more of the stream; a
space and the time follow, as Unix time in nanoseconds."""
NO_RESULT = "Orchestra-No-Result"
"""A header of a request whose caller learns of its success in another way: only an error is answered."""
RETRY_AFTER = "Retry-After"
"""Seconds, as in HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfo:
    """How a service describes itself."""

    name: str
    """Name of the service; several instances share it."""
    version: str
    """Semantic version."""
    description: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


def decode_model(kind: Any, *, empty: bytes = b"") -> Callable[[Message], Any]:
    """A decoder for JSON bodies of a message's type, which may be a union; an empty body stands for `empty`.
    The decoder raises `InvalidRequest` naming the field at fault."""
    validate = TypeAdapter(kind).validator.validate_json

    def decode(message: Message) -> Any:
        try:
            return validate(message.data or empty)
        except ValidationError as error:
            raise invalid_request(error) from error

    return decode


def invalid_request(error: ValidationError) -> InvalidRequest:
    """The first problem that pydantic found, as an error for the caller."""
    problem = first_problem(error)
    what = "no such field" if problem.type == "extra_forbidden" else problem.message
    return InvalidRequest(f"{problem.where or 'body'}: {what}", param=problem.where or None)


def encode_model(value: BaseModel) -> bytes:
    return value.model_dump_json().encode()


def encode_error(error: OrchestraError) -> bytes:
    return error.body().model_dump_json().encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One subject of a service. `decode` turns a message into what a handler of the actor takes.

    When `streams` is None and only some handlers of the actor stream, an error of `decode` itself is answered
    as in a stream.
    """

    name: str
    subject: str
    ref: ActorRef
    """The actor that handles the requests."""
    decode: Callable[[Message], Any]
    """Turns a message into what a handler of the actor takes."""
    encode: Callable[[Any], bytes] = encode_model
    """Turns a result, or one value of a stream, into bytes."""
    encode_error: Callable[[OrchestraError], bytes] = encode_error
    """Turns an error into the body of its message."""
    queue: str = ""
    """Queue group: one of its members gets each request. Empty: every instance gets it."""
    metadata: dict[str, str] = field(default_factory=dict)
    exclusive: bool = False
    """Whether only this process ever serves the subject: see `Bus.subscribe`."""
    acknowledgement: bytes = b""
    """Sent on a stream as soon as the request is accepted, before the first value."""
    streams: bool | None = None
    """Whether this endpoint answers with a stream; None: when the handler of the decoded message streams."""


@dataclass(slots=True)
class Stats:
    """The counters of one endpoint, as the protocol defines them."""

    requests: int = 0
    """Answered requests."""
    errors: int = 0
    """Requests answered with an error."""
    last_error: str = ""
    """HTTP status and text of the last error; '': none yet."""
    processing_ns: int = 0
    """Time in handlers, in nanoseconds."""


class Service:
    """One service instance on the bus."""

    def __init__(self, bus: Bus, info: ServiceInfo) -> None:
        self.bus = bus
        self.info = info
        self.id = token_hex(11)
        self.started = datetime.now(UTC)
        self._endpoints: list[tuple[Endpoint, Stats]] = []
        self._subscriptions: list[Subscription] = []
        self._verbs: list[Subscription] = []

    async def start(self) -> None:
        """Answer discovery. Add endpoints before or after."""
        for verb, answer in (("PING", self._ping), ("INFO", self._info), ("STATS", self._stats)):
            name = self.info.name
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{name}", f"$SRV.{verb}.{name}.{self.id}"):
                self._verbs.append(await self.bus.subscribe(subject, self._verb(answer)))

    async def add(self, endpoint: Endpoint) -> None:
        """Serve an endpoint. Messages beyond the actor's mailbox get `MailboxFull`."""
        stats = Stats()
        specs = handlers(endpoint.ref.host.kind)
        streams = endpoint.streams
        if streams is None:
            streams = any(spec.streams for spec in specs.values())

        def on_message(message: Message) -> None:
            if message.reply:
                sink = _ReplySink(self.bus, endpoint, message.reply, stats, streams=streams)
                sink.wants_result = not message.headers or NO_RESULT not in message.headers
                try:
                    decoded = endpoint.decode(message)
                    if endpoint.streams is None and streams and not endpoint.ref.host.spec(decoded).streams:
                        sink.answer_once()
                    sink.work = endpoint.ref.deliver(decoded, sink, Envelope.from_headers(message.headers))
                    sink.acknowledge()
                except OrchestraError as error:
                    sink.refuse(error)
                except UNEXPECTED_ERRORS as error:
                    sink.refuse(internal_error(f"endpoint {endpoint.name}", error, "service"))

        self._subscriptions.append(
            await self.bus.subscribe(
                endpoint.subject, on_message, queue=endpoint.queue, exclusive=endpoint.exclusive
            )
        )
        self._endpoints.append((endpoint, stats))

    async def leave(self) -> None:
        """Accept no more requests and leave discovery; admitted requests continue.

        A request that the server has already sent here is admitted too: no other instance would answer it.
        Call this, then drain the actor.
        """
        subscriptions = self._verbs + self._subscriptions
        self._verbs, self._subscriptions = [], []
        await asyncio.gather(*(subscription.drain() for subscription in subscriptions))

    def _verb(self, answer: Callable[[], dict[str, Any]]) -> Callable[[Message], Any]:
        def on_request(message: Message) -> None:
            self.bus.answer(message, json.dumps(answer()).encode())

        return on_request

    def _identity(self, kind: str) -> dict[str, Any]:
        return {
            "type": f"io.nats.micro.v1.{kind}_response",
            "name": self.info.name,
            "id": self.id,
            "version": self.info.version,
            "metadata": self.info.metadata,
        }

    def _ping(self) -> dict[str, Any]:
        return self._identity("ping")

    def _info(self) -> dict[str, Any]:
        return self._identity("info") | {
            "description": self.info.description,
            "endpoints": [
                {
                    "name": endpoint.name,
                    "subject": endpoint.subject,
                    "queue_group": endpoint.queue,
                    "metadata": endpoint.metadata,
                }
                for endpoint, _ in self._endpoints
            ],
        }

    def _stats(self) -> dict[str, Any]:
        return self._identity("stats") | {
            "started": self.started.isoformat().replace("+00:00", "Z"),
            "endpoints": [
                {
                    "name": endpoint.name,
                    "subject": endpoint.subject,
                    "queue_group": endpoint.queue,
                    "num_requests": stats.requests,
                    "num_errors": stats.errors,
                    "last_error": stats.last_error,
                    "processing_time": stats.processing_ns,
                    "average_processing_time": stats.processing_ns // max(1, stats.requests),
                }
                for endpoint, stats in self._endpoints
            ],
        }


class _ReplySink:
    """Sends an actor's answer to the reply subject of a request."""

    def __init__(self, bus: Bus, endpoint: Endpoint, reply: str, stats: Stats, *, streams: bool) -> None:
        self.bus = bus
        self.endpoint = endpoint
        self.reply = reply
        self.stats = stats
        self.streams = streams
        self.wants_result = True
        """Whether a result is sent; an error is in any case."""
        self.work: Invocation | None = None
        self.began = time.perf_counter_ns()
        self.probe = bus.expect(self._caller_gone) if streams else ""

    def answer_once(self) -> None:
        """Answer this request with one message, though the endpoint can stream."""
        self.streams = False
        self.bus.forget(self.probe)
        self.probe = ""

    def acknowledge(self) -> None:
        """Send the acknowledgement of a stream."""
        if self.streams and self.endpoint.acknowledgement:
            with suppress(OrchestraError):  # NATS is away: the handler will notice
                self.bus.post(self.reply, self.endpoint.acknowledgement, reply=self.probe)

    def _caller_gone(self, message: Message) -> None:
        if self.work is None:
            return
        if message.status == "503":
            self.work.cancel()
        elif message.data.startswith(CALLER_LEFT):
            self.work.cancel(unix_ns(message.data[len(CALLER_LEFT) :]))

    async def item(self, value: Any) -> None:
        await self.bus.publish(self.reply, self.endpoint.encode(value), reply=self.probe)

    async def done(self, value: Any) -> None:
        if not self.wants_result:
            self._count(None)
            return
        try:
            data = b"" if self.streams else self.endpoint.encode(value)
        except UNEXPECTED_ERRORS as error:
            self.refuse(internal_error(f"the answer of endpoint {self.endpoint.name}", error, "service"))
            return
        try:
            await self.bus.publish(self.reply, data)
        except PayloadTooLarge as error:
            self.refuse(error)
        except OrchestraError as error:
            self._count(error)
            raise
        else:
            self._count(None)
        finally:
            self.bus.forget(self.probe)

    async def failed(self, error: OrchestraError) -> None:
        self.refuse(error)

    def refuse(self, error: OrchestraError) -> None:
        """Answer with an error; in a stream the end follows it."""
        self._count(error)
        self.bus.forget(self.probe)
        headers = {ERROR: " ".join(error.message.split())[:500], ERROR_CODE: str(error.status)}
        if error.retry_after_s is not None:
            headers[RETRY_AFTER] = str(max(1, math.ceil(error.retry_after_s)))
        try:
            self.bus.post(self.reply, self.endpoint.encode_error(error), headers=headers)
            if self.streams:
                self.bus.post(self.reply)
        except OrchestraError as failure:
            log.debug("could not tell the caller of %s: %s", self.endpoint.name, failure)

    def _count(self, error: OrchestraError | None) -> None:
        self.stats.requests += 1
        self.stats.processing_ns += time.perf_counter_ns() - self.began
        if error is not None:
            self.stats.errors += 1
            self.stats.last_error = f"{error.status}:{error.message}"
