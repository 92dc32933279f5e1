"""A generation on a node: sent, waited for, and what it tells placement."""

from __future__ import annotations

import logging
import time

from pydantic import ValidationError

from actors.asker import DEFAULT_DEADLINE_S
from actors.dispatcher.in_flight import InFlight
from actors.dispatcher.job import Job
from actors.dispatcher.metrics import placed
from actors.dispatcher.placing import Placing
from actors.runtime.bus import Bus
from actors.runtime.service import ERROR
from actors.runtime.subjects import NodeAddress, StreamAddress
from actors.runtime.telemetry import span, traceparent
from orchestration.errors import (
    BackendFailed,
    BusUnavailable,
    Cancelled,
    ErrorBody,
    NobodyListens,
    OrchestraError,
    from_body,
)
from orchestration.messages import NodeInfo

log = logging.getLogger(__name__)


class NodeCalls:
    """Of one dispatcher."""

    def __init__(self, bus: Bus, in_flight: InFlight, placing: Placing) -> None:
        self.bus = bus
        self.in_flight = in_flight
        self.placing = placing

    async def generate(self, node: NodeInfo, job: Job) -> OrchestraError | None:
        """Run `job` on `node`, whose slot is taken, and give the slot free. None when the node ended the
        stream itself, whatever its end; the error otherwise."""
        began = time.monotonic()
        error: OrchestraError | None = Cancelled("the dispatcher was stopped")
        try:
            with span("place", orchestra__node=node.id) as placing:
                if placing.is_recording():
                    placing.set_attribute("orchestra.placement", self.placing.explained(job))
                error = await self._send(node, job)
        finally:
            self.placing.ended(job, node.id, error, time.monotonic() - began)
        return error

    def stop(self, job: Job) -> None:
        """Have the node that works on it stop."""
        try:
            self.bus.post(StreamAddress(job.id).cancel)
        except BusUnavailable as error:
            log.debug("nobody can tell the node of %s to stop: %s", job.id, error)

    async def _send(self, node: NodeInfo, job: Job) -> OrchestraError | None:
        placed(job.queue.model, node.id).inc()
        envelope = job.envelope.under(traceparent(job.envelope.trace))
        try:
            with self.in_flight.answers(node.id) as answers:
                message = await self.bus.request(
                    NodeAddress(node.id).generate,
                    job.body or job.delivery.message.data,
                    timeout=envelope.remaining(DEFAULT_DEADLINE_S),
                    headers=envelope.headers(),
                    within=answers,
                )
        except NobodyListens:
            return NobodyListens(f"node {node.id} does not answer")
        except OrchestraError as error:
            return error
        if not message.header(ERROR):
            return None
        try:
            return from_body(ErrorBody.model_validate_json(message.data))
        except ValidationError:
            return BackendFailed(f"node {node.id} gave an answer that cannot be read")
