"""Runs one handler for one message, and hands its result or its error to the message's sink."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import lru_cache
from typing import Any

from prometheus_client import Counter, Histogram

from actors.runtime.envelope import current_envelope
from actors.runtime.failures import UNEXPECTED_ERRORS, internal_error, task_is_cancelled
from actors.runtime.handlers import HandlerSpec
from actors.runtime.invocation import Invocation
from actors.telemetry.telemetry import ACTOR_MESSAGES, ACTOR_SECONDS
from actors.telemetry.tracing import current_scope, tracing
from orchestration.errors import Cancelled, DeadlineExceeded, InternalError, OrchestraError

log = logging.getLogger(__name__)


@lru_cache(maxsize=4096)  # a lookup of labels costs as much as a count
def _count(actor: str, message: str, outcome: str) -> Counter:
    return ACTOR_MESSAGES.labels(actor, message, outcome)


@lru_cache(maxsize=4096)
def _seconds(actor: str, message: str) -> Histogram:
    return ACTOR_SECONDS.labels(actor, message)


def count_message(actor: str, message: str, outcome: str, seconds: float) -> None:
    """Count a handler of `message` that ended with `outcome`: `ok` or the code of an error."""
    _count(actor, message, outcome).inc()
    _seconds(actor, message).observe(seconds)


class HandlerRun:
    """The run of handler `spec` of `actor`, an instance of the actor called `name`."""

    def __init__(self, name: str, actor: object, spec: HandlerSpec, invocation: Invocation) -> None:
        self.name = name
        self.actor = actor
        self.spec = spec
        self.invocation = invocation
        self.kind = type(actor).__name__

    async def run(self) -> None:
        """Raises nothing; a cancellation of the task is reported as an error too."""
        started = time.perf_counter()
        envelope = self.invocation.envelope
        current_envelope.set(envelope)
        message = self.spec.message.__name__
        if tracing.tracer is not None:
            current_scope.set(self.invocation.open_scope())
        try:
            error, result = await self._call()
            if error is None:
                outcome = await self._finish(result)
            else:
                outcome = error.code
                await report(self.name, self.invocation, error)
        except asyncio.CancelledError:
            outcome = "cancelled"
            await report(self.name, self.invocation, self._stopped())
        count_message(self.kind, message, outcome, time.perf_counter() - started)

    async def _call(self) -> tuple[OrchestraError | None, Any]:
        """Run the handler: the error to report, or the result."""
        limit = None
        try:
            if not self.invocation.envelope.deadline:
                return None, await self._handle()
            limit = asyncio.timeout(self.invocation.envelope.remaining(0))
            async with limit:
                return None, await self._handle()
        except TimeoutError as error:
            if limit is not None and limit.expired():
                return DeadlineExceeded(f"{self.name} ran out of time"), None
            return self._reported(error), None
        except asyncio.CancelledError as error:
            if task_is_cancelled():
                raise
            return self._reported(error), None
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - the caller waits for an answer, whatever a library raises
            return self._reported(error), None

    async def _handle(self) -> Any:
        called = getattr(self.actor, self.spec.method)(self.invocation.message)
        if not self.spec.streams:
            return await called
        try:
            async for value in called:
                await self.invocation.sink.item(value)
        finally:
            await called.aclose()
        return None

    async def _finish(self, result: Any) -> str:
        """Hand over the result; returns the outcome for the metrics."""
        try:
            await self.invocation.sink.done(result)
        except OrchestraError as failure:  # NATS is away
            log.warning("%s could not deliver its answer: %s", self.name, failure)
            return failure.code
        except UNEXPECTED_ERRORS as failure:
            reported = internal_error(f"the answer of {self.name}", failure, self.kind)
            await report(self.name, self.invocation, reported)
            return reported.code
        return "ok"

    def _reported(self, error: BaseException) -> OrchestraError:
        reported = internal_error(self.name, error, self.kind)
        if isinstance(reported, InternalError):  # the handler may have raised it because it was stopped
            return self.invocation.cancel_error(self.name) or reported
        return reported

    def _stopped(self) -> OrchestraError:
        return self.invocation.cancel_error(self.name) or Cancelled(f"{self.name} was told to stop")


async def report(name: str, invocation: Invocation, error: OrchestraError) -> None:
    """Hand an error to the sink of a message to the actor called `name`."""
    try:
        await invocation.sink.failed(error)
    except OrchestraError as failure:
        log.warning("%s could not deliver its error: %s", name, failure)
