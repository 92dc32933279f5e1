"""Calls webhooks. Calls wait in their own queue, so that they survive the process that queued them."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_core import to_json

from actors.bus.bus import Bus
from actors.bus.jetstream import Delivery, Puller
from actors.jobs.completion import WebhookCall
from actors.jobs.dead_letters import dead_letter
from actors.jobs.job_json import job_json
from actors.jobs.metrics import WEBHOOKS
from actors.jobs.records import JobRecord
from actors.jobs.settings import WebhookSettings
from actors.jobs.signing import signed_headers
from actors.jobs.store import JobStore
from actors.runtime.actor import Actor
from orchestration.errors import BackendFailed, InvalidRequest, OrchestraError

if TYPE_CHECKING:
    from actors.jobs.webhook_client import WebhookClient

log = logging.getLogger(__name__)

STREAM = CONSUMER = "WEBHOOKS"
PULL_S = 5.0
_GONE = 410


@dataclass(frozen=True, slots=True)
class CallWebhook:
    """Make the call of one message of the queue."""

    delivery: Delivery


class WebhookSender(Actor):
    """Calls up to `concurrency` webhooks at once. A call succeeds with a status of 2xx. Other calls are tried
    again, up to `max_attempts` times in all, and then go to the dead letters."""

    concurrency = 256
    mailbox_size = 1_024

    def __init__(self, bus: Bus, settings: WebhookSettings) -> None:
        self.bus = bus
        self.settings = settings
        self.store = JobStore(bus)
        self._puller = Puller(bus, STREAM, CONSUMER.lower(), self._pulled)
        self._calling = 0
        self._client: WebhookClient | None = None
        self._pulling: asyncio.Task[None] | None = None

    async def started(self) -> None:
        await self._puller.start()
        self._pulling = asyncio.get_running_loop().create_task(self._keep_pulling())

    async def leave(self) -> None:
        """Take no more calls. Calls that have begun go on."""
        if self._pulling is not None:
            self._pulling.cancel()
        await self._puller.stop()

    async def stopped(self) -> None:
        await self.leave()
        if self._client is not None:
            await self._client.close()

    async def _keep_pulling(self) -> None:
        """Ask the queue again from time to time, in case a request was lost."""
        while True:
            self._request()
            await asyncio.sleep(PULL_S)

    def _request(self) -> None:
        self._puller.request(self.settings.concurrency - self._calling)

    def _pulled(self, delivery: Delivery) -> None:
        self._calling += 1
        try:
            self.me.tell(CallWebhook(delivery))
        except OrchestraError as error:
            self._calling -= 1
            log.debug("a webhook call waits: %s", error)

    async def on_call_webhook(self, message: CallWebhook) -> None:
        """Call once, then acknowledge the message or have it delivered again."""
        try:
            await self._call(message.delivery)
        except OrchestraError as error:
            log.warning("a webhook call was not settled and will be repeated: %s", error)
        finally:
            self._calling -= 1
            self._request()

    async def _call(self, delivery: Delivery) -> None:
        try:
            call = WebhookCall.model_validate_json(delivery.message.data)
        except ValidationError:
            await delivery.terminate("not a webhook call")
            return
        record = await self.store.record(call.id)
        if record is None or record.retry_number != call.retry_number:
            await delivery.ack()  # the job expired, or a later retry has its own call
            return
        error = await self._post(record)
        WEBHOOKS.labels("ok" if error is None else "failed").inc()
        if error is None:
            await delivery.ack()
        elif delivery.attempt < self.settings.max_attempts and not isinstance(error, InvalidRequest):
            log.info("webhook of %s, attempt %d: %s", call.id, delivery.attempt, error)
            await delivery.nak(self.settings.pause_s(delivery.attempt))
        else:
            await dead_letter(
                self.bus,
                delivery.message,
                reason=error.message,
                attempts=delivery.attempt,
                error=error.body(),
            )
            await delivery.ack()

    async def _post(self, record: JobRecord) -> OrchestraError | None:
        """Call the webhook. Returns None on success, `InvalidRequest` when no later call can succeed."""
        if not self.settings.secret:
            return BackendFailed("jobs.webhook.secret is not set in this process, so calls cannot be signed")
        result = await self.store.result(record.id, record.retry_number)
        body = to_json(job_json(record, result))
        headers = signed_headers(self.settings.secret, record.message_id, int(time.time()), body)
        try:
            status = await self._http().post(record.webhook, body, headers)
        except (InvalidRequest, BackendFailed) as error:
            return error
        if 200 <= status < 300:
            return None
        if status == _GONE:
            return InvalidRequest("the webhook answered 410 Gone")
        return BackendFailed(f"the webhook answered {status}")

    def _http(self) -> WebhookClient:
        if self._client is None:
            # Imported here: aiohttp takes 10 MB, which a process that calls no webhook never needs.
            from actors.jobs.webhook_client import WebhookClient

            self._client = WebhookClient(self.settings)
        return self._client
