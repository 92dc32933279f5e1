"""Webhooks: signed, tried again, given up, kept over restarts, and led to no private address."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator

import pytest

from actors.gateway.job_submission import JobsApi
from actors.jobs.dead_letters import DeadLetter
from actors.jobs.process import run_webhooks
from actors.jobs.settings import JobsSettings, WebhookSettings
from actors.jobs.signing import signed_headers
from actors.jobs.webhooks import STREAM
from actors.net.public_addresses import PublicResolver, check_url, is_private
from actors.runtime.envelope import Envelope
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


def test_the_end_of_a_job_is_told_with_a_signature_that_its_receiver_can_check(
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


def test_a_failed_and_a_cancelled_job_are_told_too(
    cluster: Cluster, client: JobsClient, hook: Receiver
) -> None:
    client.submit(chat("word " * 20_000, webhook=hook.url))
    slow = client.submit(chat("again " * 1_000, model="slow", webhook=hook.url)).body["id"]
    client.call("DELETE", f"/v1/jobs/{slow}")
    cluster.wait(lambda: len(hook.calls) == 2)
    assert {json.loads(body)["status"] for _, body in hook.calls} == {"failed", "cancelled"}


def test_a_receiver_in_trouble_is_called_again_with_the_same_id(
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


async def test_a_call_that_is_owed_outlives_whoever_owed_it(own_nats: RunningNats, hook: Receiver) -> None:
    async with job_harness(own_nats.url, QUICK) as harness:
        await ended_job(harness, hook.url)
        assert await stored_in(harness.bus, STREAM) == 1
    own_nats.kill()
    own_nats.restart()
    async with job_harness(own_nats.url, QUICK) as harness, run_webhooks(harness.bus, QUICK, ActorSystem()):
        await eventually(lambda: len(hook.calls) == 1)


async def test_calls_that_nobody_takes_go_to_the_dead_letters_and_can_be_made_again(
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


async def test_a_receiver_that_is_gone_is_not_called_again(own_nats: RunningNats, hook: Receiver) -> None:
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


async def test_a_name_that_leads_to_a_private_address_is_refused_when_it_is_looked_up() -> None:
    resolver = PublicResolver()
    with pytest.raises(OSError, match="not public"):
        await resolver.resolve("localhost", 80)
    await resolver.close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "2002:7f00:0001::",
    ],
)
def test_addresses_that_are_not_public_are_known_as_such(host: str) -> None:
    assert is_private(host)
    url = f"http://[{host}]/" if ":" in host else f"http://{host}/"
    with pytest.raises(InvalidRequest):
        check_url(url, private=False)
    if ":" not in host:
        assert check_url(url, private=True).host


@pytest.mark.parametrize("host", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "example.org"])
def test_public_addresses_and_names_are_let_through(host: str) -> None:
    assert not is_private(host)


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
        cluster.call(api.submit(body, "", Envelope()))
