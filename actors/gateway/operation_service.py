"""The operations over NATS, except `orchestra.chat`, which streams.

Each takes a JSON body with the parameters that the HTTP route has in its path, query and body, and answers
with the body that HTTP has. The header `Orchestra-Caller` names the caller.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from actors.bus.bus import Message
from actors.gateway.gateway import Gateway
from actors.gateway.metrics import count_request
from actors.gateway.operation import Access, CallContext, Operation
from actors.gateway.request_log import RequestEnd
from actors.gateway.request_span import RequestSpan
from actors.openai_api.encoder import error_json
from actors.runtime.actor import Actor
from actors.runtime.actor_host import ActorRef
from actors.runtime.envelope import current_envelope
from actors.runtime.service import Endpoint
from orchestration.errors import OrchestraError, PayloadTooLarge

QUEUE = "orchestra"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOperation:
    """A decoded request, and the message it came in, for its headers."""

    operation: Operation[Any]
    request: Any
    message: Message


class OperationService(Actor):
    """Answers the operations of one table, whose methods `services` has, with JSON. `concurrency` bounds the
    calls in progress, `mailbox_size` those that wait."""

    concurrency = 256
    mailbox_size = 4_096

    def __init__(self, gateway: Gateway, services: Any) -> None:
        self.gateway = gateway
        self.services = services

    async def on_call(self, message: CallOperation) -> bytes:
        assert message.operation.handler is not None
        envelope = current_envelope.get()
        caller = self.gateway.authenticator.of_nats(envelope.caller) if envelope.caller else ""
        if message.operation.access is Access.ADMIN:
            self.gateway.authenticator.check_nats_admin(caller)
        span = RequestSpan(f"process {message.operation.subject}", envelope.trace, {})
        call = CallContext(caller=caller, header=message.message.header, trace=span.traceparent)
        started, status, failure = time.perf_counter(), 499, None
        try:
            with self.gateway.storage.explain_errors():
                reply = await message.operation.handler(self.services)(message.request, call)
            status = reply.status
            span.end()
        except BaseException as error:
            span.end(error=error)
            if isinstance(error, OrchestraError):
                status, failure = error.status, error
            raise
        finally:
            RequestEnd(
                protocol="nats",
                route=message.operation.subject,
                status=status,
                started=started,
                caller=caller,
                trace=call.trace,
                error=failure,
                by_operator=message.operation.access is Access.ADMIN,
            ).record(self.gateway.settings.slow_request_s)
        return reply.body


def operation_endpoints(
    ref: ActorRef, operations: Iterable[Operation[Any]], max_body_bytes: int
) -> list[Endpoint]:
    """One for each operation with a subject and a `handler`; all gateways share them in a queue group."""
    return [
        _endpoint(ref, operation, operation.max_bytes or max_body_bytes)
        for operation in operations
        if operation.subject and operation.handler is not None
    ]


def _endpoint(ref: ActorRef, operation: Operation[Any], max_bytes: int) -> Endpoint:
    def decode(message: Message) -> CallOperation:
        try:
            if len(message.data) > max_bytes:
                raise PayloadTooLarge.of(len(message.data), max_bytes, operation.limit_name)
            request = operation.decode(message.data, {})
        except OrchestraError as error:
            count_request("nats", operation.subject, error.status)
            raise
        return CallOperation(operation=operation, request=request, message=message)

    return Endpoint(
        name=operation.name,
        subject=operation.subject,
        ref=ref,
        decode=decode,
        encode=bytes,
        encode_error=error_json,
        queue=QUEUE,
        streams=False,
    )
