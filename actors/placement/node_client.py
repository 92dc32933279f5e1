"""Runs a generation on a node, and reports the outcome to placement."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from opentelemetry.util.types import AttributeValue
from pydantic import ValidationError

from actors.bus.bus import Bus, LocalNode, Message
from actors.bus.subjects import NodeAddress
from actors.placement.generation_log import record_answered, record_failed
from actors.placement.in_flight import Answers, InFlight
from actors.placement.job import Job, Work, encoded
from actors.placement.metrics import placed
from actors.placement.placer import Placer
from actors.runtime.envelope import DEFAULT_DEADLINE_S, Envelope
from actors.runtime.service import ERROR, NO_RESULT
from actors.telemetry import conventions as names
from actors.telemetry.tracing import NO_SPAN, OpenSpan, is_sampled, start_span, tracing
from orchestration.errors import (
    BackendFailed,
    BusUnavailable,
    Cancelled,
    NoResponders,
    OrchestraError,
    from_body,
)
from orchestration.messages import (
    ErrorBody,
    Generation,
    GenerationEnd,
    NodeInfo,
    StreamEnd,
    decode_generation,
)
from orchestration.placement import FirstOutputs, FirstOutputSettings

log = logging.getLogger(__name__)

NO_MESSAGE = Message("", "", b"", None)
"""Ends the wait for the answer of a node whose stream has ended."""


class NodeClient:
    """The calls of one process to nodes."""

    def __init__(
        self, bus: Bus, in_flight: InFlight, placer: Placer, first_output: FirstOutputSettings
    ) -> None:
        self.bus = bus
        self.first_outputs = FirstOutputs(first_output)
        self.in_flight = in_flight
        self.placer = placer

    async def generate(
        self, node: NodeInfo, job: Job, hedge: Generation | None = None
    ) -> GenerationEnd | OrchestraError:
        """Run `job` on `node`, whose slot is taken, and free the slot. Returns the end of the stream if the
        node wrote it, else the error.

        `hedge` is the generation for a second node that runs beside the first one. When the calling task is
        cancelled, the node is told to stop.
        """
        started_at = time.monotonic()
        if not job.first_sent_at or (not job.moves and hedge is None):  # a node that refused it never had it
            job.first_sent_at = started_at
        outcome: GenerationEnd | OrchestraError = Cancelled("the caller left")
        call = None
        if any(
            card.loaded for card in node.models if card.name == job.model
        ):  # loading takes longer than a first output
            call = self.first_outputs.sent(job.id, node.id, job.needs, started_at)
        try:
            with self._start_attempt(node, job, hedge) as attempt:
                # A node's span outlives a dispatcher that is killed, whose own spans are lost with it.
                trace = attempt.traceparent if job.caller_is_here else ""
                outcome = await self._call(node, job, hedge, trace)
                if isinstance(outcome, GenerationEnd) and (hedge is None or outcome.error is None):
                    record_answered(job, node.id, outcome, started_at)
                if isinstance(outcome, OrchestraError):
                    attempt.fail(outcome)
                elif outcome.ended_at and (hedge is None or outcome.error is None):
                    job.scope.close(int(outcome.ended_at * 1e9))
        except asyncio.CancelledError:
            if job.cancelled and hedge is None:
                record_failed(job, node.id, Cancelled("the caller left"))
            self._tell_to_stop(node.id, job, job.writer if hedge is None else _writer_of(hedge))
            raise
        finally:
            if call is not None:
                self.first_outputs.ended(call)
            error = outcome if isinstance(outcome, OrchestraError) else None
            self.placer.ended(job, node.id, error, time.monotonic() - started_at)
        return outcome

    def _start_attempt(self, node: NodeInfo, job: Job, hedge: Generation | None) -> OpenSpan:
        """The span of one attempt; it says why this node, where it is sampled."""
        trace = job.envelope.trace
        if tracing.tracer is None:
            return NO_SPAN
        attributes: dict[str, AttributeValue] = {
            names.NODE: node.id,
            names.HEDGE: hedge is not None,
            names.SPAN_KIND: names.CHAIN,
        }
        if is_sampled(trace):
            attributes[names.CANDIDATES] = self.placer.candidates(job)
        return start_span(f"attempt on {node.id}", trace, attributes, scope=job.scope)

    def abandon(self, node: str, job: Job, writer: str, error: OrchestraError) -> None:
        """End the call of `node` with `error` and tell the node to stop."""
        self.in_flight.fail(node, job.id, error)
        self._tell_to_stop(node, job, writer)

    def _tell_to_stop(self, node: str, job: Job, writer: str) -> None:
        try:
            at_ns = job.scope.over_ns or time.time_ns()
            self.bus.post(NodeAddress(node).stop, f"{job.id} {writer} {at_ns}".encode())
        except BusUnavailable as failure:
            log.debug("cannot tell node %s to stop generation %s: %s", node, job.id, failure)

    async def _call(
        self, node: NodeInfo, job: Job, hedge: Generation | None, trace: str
    ) -> GenerationEnd | OrchestraError:
        placed(job.model, node.id).inc()
        envelope = job.envelope.with_trace(trace) if trace else job.envelope
        local = self.bus.local_nodes.get(node.id) if self.bus.settings.local_delivery else None
        work = job.next_work if hedge is None else hedge
        answers = self.in_flight.expect_answer(node.id, job.id)
        try:
            generation = None if local is None else _decoded(work)
            if local is not None and generation is not None:
                return await self._call_here(local, generation, envelope, answers)
            return await self._send(node, job, work, envelope, answers, hedge=hedge is not None)
        except NoResponders:
            return NoResponders(f"node {node.id} does not answer")
        except OrchestraError as error:
            return error
        finally:
            self.in_flight.forget_answer(node.id, job.id, answers)

    @staticmethod
    async def _call_here(
        node: LocalNode, work: Generation, envelope: Envelope, answers: Answers
    ) -> GenerationEnd:
        """Run `work` on a node of this process, without a message. The node ends it at its deadline.
        Raises the error of the node."""
        answer: asyncio.Future[GenerationEnd] = asyncio.get_running_loop().create_future()
        answers.add(answer)
        node.deliver(work, _LocalSink(answer), envelope)
        return await answer

    async def _send(
        self, node: NodeInfo, job: Job, work: Work, envelope: Envelope, answers: Answers, *, hedge: bool
    ) -> GenerationEnd | OrchestraError:
        """Run `work` on a node by a message."""
        headers = envelope.headers()
        ends: list[GenerationEnd] = []

        def on_end(end: StreamEnd, writer: str) -> None:
            if writer == job.writer and isinstance(end, GenerationEnd):
                ends.append(end)
                for answer in answers:
                    if not answer.done():
                        answer.set_result(NO_MESSAGE)

        # The reader ignores a refusal by a second node, so that one has to answer.
        reads_end = not hedge and job.reader.expect_end(on_end)
        if reads_end:
            headers[NO_RESULT] = "1"
        try:
            message = await self.bus.request(
                NodeAddress(node.id).generate,
                encoded(work),
                timeout=envelope.remaining(DEFAULT_DEADLINE_S),
                headers=headers,
                within=answers,
            )
        finally:
            if reads_end:
                job.reader.expect_end(None)
        if ends:
            return ends[0]
        try:
            if not message.header(ERROR):
                return GenerationEnd.model_validate_json(message.data)
            return from_body(ErrorBody.model_validate_json(message.data))
        except ValidationError:
            return BackendFailed(f"node {node.id} sent an invalid answer")


def _decoded(work: Work) -> Generation | None:
    """None for JSON that cannot be read: the node reports what is wrong with it."""
    try:
        return decode_generation(work) if isinstance(work, bytes) else work
    except ValidationError:
        return None


def _writer_of(work: Generation) -> str:
    return "" if work.continuation is None else work.continuation.writer


class _LocalSink:
    """Receives the answer of a node of this process."""

    __slots__ = ("_answer",)

    def __init__(self, answer: asyncio.Future[GenerationEnd]) -> None:
        self._answer = answer

    async def item(self, value: Any) -> None:
        """A node answers with one value."""

    async def done(self, value: Any) -> None:
        if not self._answer.done():
            self._answer.set_result(value)

    async def failed(self, error: OrchestraError) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)
