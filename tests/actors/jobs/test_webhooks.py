"""Webhook calls: signed, repeated after failures, kept over restarts, never sent to a private address."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator

import pytest

from actors.gateway.jobs_api import JobsApi
from actors.gateway.operation import CallContext
from actors.jobs.dead_letters import DeadLetter
from actors.jobs.process import run_webhooks
from actors.jobs.settings import JobsSettings, WebhookSettings
from actors.jobs.signing import signed_headers
from actors.jobs.webhooks import STREAM
from actors.runtime.system import ActorSystem
from orchestration.errors import InvalidRequest
from tests.actors.jobs.client import JobsClient, chat
from tests.actors.jobs.conftest import QUICK, SECRET
from tests.actors.jobs.harness import JobHarness, job_harness
from tests.actors.jobs.receiver import Receiver, receiver
from tests.fixtures.cluster import Cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import stored_in
from tests.fixtures.nats import RunningNats


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as here:
        yield here


def test_a_webhook_call_has_a_signature_that_its_receiver_can_check(
    cluster: Cluster, client: JobsClient, hook: Receiver
) -> None:
    job_id = client.submit(chat("tell me", webhook=hook.url)).body["id"]
    cluster.wait(lambda: len(hook.calls) == 1)
    headers, body = hook.calls[0]
    assert json.loads(body)["result"]["choices"][0]["message"]["content"] == "tell me"
    assert headers["webhook-id"] == f"{job_id}#0"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 30
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_failed_and_cancelled_jobs_call_their_webhooks_too(
    cluster: Cluster, client: JobsClient, hook: Receiver
) -> None:
    client.submit(chat("word " * 20_000, webhook=hook.url))
    slow = client.submit(chat("again " * 1_000, model="slow", webhook=hook.url)).body["id"]
    client.call("DELETE", f"/v1/jobs/{slow}")
    cluster.wait(lambda: len(hook.calls) == 2)
    assert {json.loads(body)["status"] for _, body in hook.calls} == {"failed", "cancelled"}


def test_a_failing_receiver_is_called_again_with_the_same_id(
    cluster: Cluster, client: JobsClient, hook: Receiver
) -> None:
    hook.answers += [500, 302]  # a redirect is not followed
    client.submit(chat("tell me", webhook=hook.url))
    cluster.wait(lambda: len(hook.calls) == 3)
    assert len({headers["webhook-id"] for headers, _ in hook.calls}) == 1


async def ended_job(harness: JobHarness, url: str) -> str:
    """A job that has ended, whose webhook is owed."""
    job = await harness.submit(webhook=url)
    record, delivery = await harness.take(job["id"])
    assert record is not None
    await harness.succeed(record, delivery, "done")
    return str(job["id"])


async def first_letter(harness: JobHarness) -> DeadLetter:
    async def letters() -> list[DeadLetter]:
        return (await harness.dead_letters.list(limit=10))[0]

    found: list[DeadLetter] = await eventually(letters)
    return found[0]


async def test_a_webhook_call_survives_a_restart_of_nats(own_nats: RunningNats, hook: Receiver) -> None:
    async with job_harness(own_nats.url, QUICK) as harness:
        await ended_job(harness, hook.url)
        assert await stored_in(harness.bus, STREAM) == 1
    own_nats.kill()
    own_nats.restart()
    async with job_harness(own_nats.url, QUICK) as harness, run_webhooks(harness.bus, QUICK, ActorSystem()):
        await eventually(lambda: len(hook.calls) == 1)


async def test_failing_webhook_calls_become_dead_letters_and_can_be_retried(
    own_nats: RunningNats, hook: Receiver
) -> None:
    hook.answers += [500] * QUICK.webhook.max_attempts
    async with job_harness(own_nats.url, QUICK) as harness, run_webhooks(harness.bus, QUICK, ActorSystem()):
        job_id = await ended_job(harness, hook.url)
        await eventually(lambda: len(hook.calls) == QUICK.webhook.max_attempts)
        letter = await first_letter(harness)
        assert (letter.kind, letter.id, letter.attempts) == ("webhooks", job_id, 3)
        assert "answered 500" in letter.reason
        assert await harness.dead_letters.retry(letter.number) == job_id
        await eventually(lambda: len(hook.calls) == QUICK.webhook.max_attempts + 1)


async def test_a_receiver_that_answers_410_is_not_called_again(own_nats: RunningNats, hook: Receiver) -> None:
    hook.answers += [410]
    async with job_harness(own_nats.url, QUICK) as harness, run_webhooks(harness.bus, QUICK, ActorSystem()):
        await ended_job(harness, hook.url)
        letter = await first_letter(harness)
        assert "410" in letter.reason
        assert len(hook.calls) == 1


async def test_a_private_address_is_never_called_unless_the_settings_allow_it(
    own_nats: RunningNats, hook: Receiver
) -> None:
    """A record may be older than a change of the settings, so the sender looks again."""
    strict = JobsSettings(webhook=WebhookSettings(secret=SECRET))
    async with job_harness(own_nats.url, strict) as harness, run_webhooks(harness.bus, strict, ActorSystem()):
        await ended_job(harness, hook.url)
        letter = await first_letter(harness)
        assert "not a public address" in letter.reason
        assert hook.calls == []


def test_a_secret_in_base64_is_the_key_itself() -> None:
    """The example of the Standard Webhooks specification's reference library."""
    headers = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_without_a_secret_a_webhook_is_refused(cluster: Cluster) -> None:
    api = JobsApi(cluster.running.gateway, JobsSettings())
    body = json.dumps(chat(webhook="https://example.org/")).encode()
    with pytest.raises(InvalidRequest, match=r"jobs\.webhook\.secret"):
        cluster.call(api.submit(body, CallContext(caller="", header=lambda name: "")))
