"""Chats over NATS: the endpoint `orchestra.chat` of the service `orchestra`.

A request's body is that of `POST /v1/chat/completions`. The answer is one message with the completion;
with `"stream": true` it is one message for each chunk and an empty message at the end. The first chunk of a
run has only its id, so that clients can read its events from the beginning. An error carries the headers
`Nats-Service-Error` and `Nats-Service-Error-Code` (the HTTP status) and OpenAI's error body; in a stream the
empty message follows it, as it does where the body cannot be read at all.

The header `Orchestra-Caller` names the caller, for limits and the cache; the default is `anonymous`.

A stream is cancelled when its reply subject has no subscriber any more. Any request is cancelled by
publishing its name to `orchestra.chat.cancel`: the client's text from the header `Orchestra-Cancel-Key`, or
the `id` of the chunks. The gateway that has the request replies `{"cancelled": true}` if the message asks
for a reply.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.util.types import AttributeValue

from actors import __version__
from actors.bus.bus import Bus, Message, Subscription
from actors.bus.subjects import CHAT_CANCEL_SUBJECT, CHAT_SUBJECT
from actors.gateway.admitted_request import AdmittedRequest
from actors.gateway.bodies import ChatBody
from actors.gateway.gateway import Gateway
from actors.gateway.model_resolver import ModelResolver
from actors.gateway.request_log import RequestEnd
from actors.gateway.request_span import RequestSpan
from actors.gateway.requests import admit_chat, parse_chat
from actors.openai_api.encoder import error_json
from actors.runtime.actor import Actor
from actors.runtime.actor_host import ActorRef
from actors.runtime.envelope import Envelope, current_envelope
from actors.runtime.failures import wrap_unexpected_errors
from actors.runtime.invocation import DEADLINE_MARGIN_S
from actors.runtime.service import Endpoint, ServiceInfo
from actors.telemetry import conventions as names
from orchestration.errors import DeadlineExceeded, OrchestraError, PayloadTooLarge
from orchestration.messages import Run

CANCEL_KEY = "Orchestra-Cancel-Key"
"""Key that the client chose for a chat; a message with it on `orchestra.chat.cancel` cancels the chat."""
QUEUE = "orchestra"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteChat:
    """Answer a chat with one message. `key` is the client's cancel key, or ''. It arrived at `started`, by
    `perf_counter`."""

    body: ChatBody
    key: str = ""
    started: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChat:
    """Answer a chat with its chunks."""

    body: ChatBody
    key: str = ""
    started: float = field(default_factory=time.perf_counter)


class ChatService(Actor):
    """Answers `orchestra.chat`. The gateway's `max_in_flight` limits it, together with HTTP."""

    concurrency = 65_536

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._cancels: Subscription | None = None

    async def started(self) -> None:
        self._cancels = await self.gateway.bus.subscribe(CHAT_CANCEL_SUBJECT, self._cancel)

    async def stopped(self) -> None:
        if self._cancels is not None:
            await self._cancels.unsubscribe()

    async def on_complete(self, message: CompleteChat) -> bytes:
        """The completion."""
        with self._traced() as span:
            request, envelope = self._admit(message, span)
            with self._work(request, envelope, message.key):
                origin, body = await self.gateway.full(request, envelope)
                span.answered_by(origin)
                return body

    async def on_stream(self, message: StreamChat) -> AsyncIterator[bytes]:
        """The chunks."""
        with self._traced() as span:
            request, envelope = self._admit(message, span)
            with self._work(request, envelope, message.key):
                if isinstance(request.work, Run):
                    for data in request.encoder.encode_opening():
                        yield data
                async with self.gateway.respond(request, envelope) as response:
                    span.answered_by(response.origin)
                    async for event in response:
                        for data in request.encoder.encode_event(event):
                            yield data

    @contextmanager
    def _traced(self) -> Iterator[RequestSpan]:
        """The span of the request that the current handler answers."""
        attributes: dict[str, AttributeValue] = {
            names.MESSAGING_SYSTEM: "nats",
            names.MESSAGING_OPERATION: "process",
            names.MESSAGING_DESTINATION: CHAT_SUBJECT,
        }
        span = RequestSpan(f"process {CHAT_SUBJECT}", current_envelope.get().trace, attributes)
        try:
            yield span
        except BaseException as error:
            span.end(error=_cause(error, current_envelope.get()))
            raise
        span.end()

    def _admit(
        self, message: CompleteChat | StreamChat, span: RequestSpan
    ) -> tuple[AdmittedRequest, Envelope]:
        gateway, started = self.gateway, message.started
        try:
            caller = gateway.authenticator.of_nats(current_envelope.get().caller)
            gateway.storage.check()
            work_id = gateway.streams.new_id()
            with wrap_unexpected_errors(
                f"request {work_id}", "nats"
            ):  # settings of a plug-in's pattern are checked here
                request = admit_chat(message.body, work_id, gateway.resolver)
        except OrchestraError as error:
            self._record(_end(None, current_envelope.get(), error.status, started, error))
            raise
        received = current_envelope.get()
        longest = gateway.settings.request_timeout_s
        seconds = min(longest, received.remaining(longest))
        request.outcome.started = started
        span.admitted(request, caller)
        return request, Envelope.within(seconds, trace=span.traceparent, caller=caller)

    @contextmanager
    def _work(self, request: AdmittedRequest, envelope: Envelope, key: str) -> Iterator[None]:
        """Make the current task cancellable by its names while the block runs, and count its result."""
        started = request.outcome.started
        failure: OrchestraError | None = None
        task = asyncio.current_task()
        assert task is not None
        names = [request.work.id, key] if key else [request.work.id]
        for name in names:
            self._tasks[name] = task
        status = 499
        try:
            with (
                self.gateway.active.request(request.work.id),
                self.gateway.storage.explain_errors(),
                wrap_unexpected_errors(f"request {request.work.id}", "nats"),
            ):
                yield
            status = 200
        except (OrchestraError, asyncio.CancelledError, GeneratorExit) as error:
            cause = _cause(error, envelope)
            if isinstance(cause, OrchestraError):
                status, failure = cause.status, cause
            raise
        finally:
            self._record(_end(request, envelope, status, started, failure))
            for name in names:
                if self._tasks.get(name) is task:
                    del self._tasks[name]

    def _record(self, end: RequestEnd) -> None:
        end.record(self.gateway.settings.slow_request_s)

    async def _cancel(self, message: Message) -> None:
        name = message.data.decode(errors="replace").strip().removeprefix("chatcmpl-")
        task = self._tasks.get(name)
        if task is None:
            return
        task.cancel()
        self.gateway.bus.answer(message, b'{"cancelled":true}')


def _cause(error: BaseException, envelope: Envelope) -> BaseException:
    """The error that ended a chat: its actor stops it at the deadline as if its client had left."""
    late = 0 < envelope.deadline <= time.time() + DEADLINE_MARGIN_S
    if late and isinstance(error, asyncio.CancelledError | GeneratorExit):
        return DeadlineExceeded("no complete answer before the deadline")
    return error


def _end(
    request: AdmittedRequest | None,
    envelope: Envelope,
    status: int,
    started: float,
    error: OrchestraError | None,
) -> RequestEnd:
    """The end of a chat, for the log."""
    return RequestEnd(
        protocol="nats",
        route=CHAT_SUBJECT,
        status=status,
        started=started,
        caller=envelope.caller,
        trace=envelope.trace,
        error=error,
        request=request,
    )


def service_info(bus: Bus) -> ServiceInfo:
    """The service as NATS discovery lists it."""
    return ServiceInfo(
        name="orchestra",
        version=__version__,
        description="Answers chats; the body is that of OpenAI's /v1/chat/completions",
        metadata={"gateway": bus.name},
    )


def chat_endpoint(ref: ActorRef, resolver: ModelResolver, max_body_bytes: int) -> Endpoint:
    """`orchestra.chat`, shared by all gateways."""

    def decode(message: Message) -> CompleteChat | StreamChat:
        started = time.perf_counter()
        try:
            if len(message.data) > max_body_bytes:
                raise PayloadTooLarge.of(len(message.data), max_body_bytes)
            body = parse_chat(message.data, resolver)
        except OrchestraError as error:
            envelope = Envelope.from_headers(message.headers)
            _end(None, envelope, error.status, started, error).record(math.inf)
            raise
        kind = StreamChat if body.stream else CompleteChat
        return kind(body=body, key=message.header(CANCEL_KEY), started=started)

    return Endpoint(
        name="chat",
        subject=CHAT_SUBJECT,
        ref=ref,
        decode=decode,
        encode=bytes,
        encode_error=error_json,
        queue=QUEUE,
        metadata={"body": "OpenAI chat completion request", "cancel": CHAT_CANCEL_SUBJECT},
    )
