"""Jobs under workers that die, sleep and come back: each attempt is the test's own."""

from __future__ import annotations

import asyncio
import time

import pytest

from actors.bus.bus import Message
from actors.jobs.dead_letters import dead_letter
from actors.jobs.errors import NoSuchJob
from actors.jobs.records import JobResult, JobStatus
from actors.jobs.settings import JobsSettings
from orchestration.errors import BackendFailed, InvalidRequest, NoNode, QueueFull
from orchestration.messages import Finish, RunEnd
from tests.actors.jobs.harness import JobHarness, answer_of, job_harness
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import api, stored_in
from tests.fixtures.nats import RunningNats

SETTINGS = JobsSettings(max_attempts=3, first_pause_s=0.01, outage_pause_s=0.01)


async def failing(harness: JobHarness, job_id: str, error: BackendFailed | NoNode) -> bool:
    """One attempt that ends with `error`."""
    record, delivery = await harness.take(job_id)
    assert record is not None
    ended = RunEnd(finish=Finish(reason="error"), error=error.body())
    return await harness.job_attempts.fail(record, delivery, error, ended)


async def until_stored(harness: JobHarness, stream: str, count: int) -> None:
    async def so_many() -> bool:
        return await stored_in(harness.bus, stream) == count

    await eventually(so_many)


async def test_a_late_worker_cannot_overwrite_a_result(own_nats: RunningNats) -> None:
    async with job_harness(own_nats.url, SETTINGS) as harness:
        job_id = (await harness.submit())["id"]
        asleep, its_delivery = await harness.take(job_id)
        await its_delivery.nak()  # stands for the end of its ack_wait
        other, delivery = await harness.take(job_id)
        assert asleep is not None
        assert other is not None
        assert other.attempts == 2
        await harness.succeed(other, delivery, "by the other")
        await harness.succeed(asleep, its_delivery, "by the one that slept")
        job = await harness.service.get(job_id)
        assert (job["status"], answer_of(job)) == ("succeeded", "by the other")
        await until_stored(harness, "RUNS", 0)


async def test_a_redelivered_job_with_a_result_is_completed_and_not_run_again(own_nats: RunningNats) -> None:
    """Its first worker died between the record of the result and everything after it."""
    async with job_harness(own_nats.url, SETTINGS) as harness:
        job_id = (await harness.submit())["id"]
        record, delivery = await harness.take(job_id)
        assert record is not None
        ended = RunEnd(finish=Finish(reason="stop"))
        result = JobResult(
            id=job_id, status=JobStatus.SUCCEEDED, text="recorded", ended=ended, finished_at=time.time()
        )
        await harness.job_attempts.store.create_result(result)
        await delivery.nak()
        again, _ = await harness.take(job_id)
        assert again is None
        job = await harness.service.get(job_id)
        assert (job["status"], job["attempts"], answer_of(job)) == ("succeeded", 1, "recorded")
        assert (await harness.service.list(limit=1))["data"][0]["status"] == "succeeded"
        await until_stored(harness, "RUNS", 0)


async def test_an_answer_larger_than_a_message_is_stored_whole_and_one_beyond_the_limit_fails(
    own_nats: RunningNats,
) -> None:
    answer = "ä" * 6_000_000
    async with job_harness(own_nats.url, SETTINGS) as harness:
        job_id = (await harness.submit("all of it"))["id"]
        record, delivery = await harness.take(job_id)
        assert record is not None
        await harness.succeed(record, delivery, answer)
        result = await harness.job_attempts.store.result(job_id, 0)
        assert result is not None
        assert result.text == answer
        assert (await harness.service.get(job_id))["status"] == "succeeded"

        harness.job_attempts.store.max_result_bytes = 1_000_000
        job_id = (await harness.submit("far too much"))["id"]
        record, delivery = await harness.take(job_id)
        assert record is not None
        await harness.succeed(record, delivery, "a" * 1_100_000)
        failed = await harness.service.get(job_id)
        assert failed["status"] == "failed"
        assert "the limit for a job is 1000000" in failed["error"]["message"]
        await until_stored(harness, "RUNS", 0)


async def test_a_job_that_kills_its_workers_becomes_a_dead_letter_and_can_be_retried(
    own_nats: RunningNats,
) -> None:
    async with job_harness(own_nats.url, SETTINGS) as harness:
        job = await harness.submit("kills its workers")
        for _ in range(SETTINGS.max_attempts):
            record, delivery = await harness.take(job["id"])
            assert record is not None
            await delivery.nak()  # stands for the death of the worker
        nobody, _ = await harness.take(job["id"])
        assert nobody is None
        assert (await harness.service.get(job["id"]))["status"] == "dead"
        await until_stored(harness, "RUNS", 0)
        letters, more = await harness.dead_letters.list(limit=10)
        assert (len(letters), more) == (1, 0)
        shown = (await harness.dead_letters.show(letters[0].number)).to_json(body=True)
        assert (shown["kind"], shown["id"], shown["attempts"]) == ("runs", job["id"], 3)
        assert "3 attempts" in shown["reason"]
        assert shown["trace_id"] == job["trace_id"]
        assert shown["body"]["work"]["messages"][0]["content"] == "kills its workers"

        assert await harness.dead_letters.retry(letters[0].number) == job["id"]
        assert (await harness.dead_letters.list(limit=10))[0] == []
        fresh, delivery = await harness.take(job["id"])
        assert fresh is not None
        assert (fresh.retry_number, fresh.attempts) == (1, 1)
        assert record is not None
        await harness.succeed(record, delivery, "by a worker of the round before")
        assert (await harness.service.get(job["id"]))["status"] == "running"
        await harness.succeed(fresh, delivery, "at last")
        ended = await harness.service.get(job["id"])
        assert (ended["status"], answer_of(ended), ended["retries"]) == ("succeeded", "at last", 1)


async def test_a_failing_job_is_tried_again_and_its_dead_letter_has_the_last_error(
    own_nats: RunningNats,
) -> None:
    async with job_harness(own_nats.url, SETTINGS) as harness:
        job_id = (await harness.submit())["id"]
        error = BackendFailed("the backend is out of order")
        assert [await failing(harness, job_id, error) for _ in range(3)] == [False, False, True]
        job = await harness.service.get(job_id)
        assert (job["status"], job["error"]["code"], job["attempts"]) == ("dead", "backend_failed", 3)
        letter = (await harness.dead_letters.list(limit=1))[0][0]
        assert letter.error is not None
        assert letter.error.message == "the backend is out of order"
        await harness.dead_letters.drop(letter.number)
        with pytest.raises(NoSuchJob):
            await harness.dead_letters.show(letter.number)
        with pytest.raises(NoSuchJob):
            await harness.dead_letters.retry(letter.number)


async def test_attempts_during_an_outage_do_not_count(own_nats: RunningNats) -> None:
    async with job_harness(own_nats.url, SETTINGS) as harness:
        job_id = (await harness.submit())["id"]
        for _ in range(SETTINGS.max_attempts * 2):
            assert await failing(harness, job_id, NoNode("no node is here")) is False
        record, delivery = await harness.take(job_id)
        assert record is not None
        assert record.attempts == 1
        await harness.succeed(record, delivery, "when one came")
        assert (await harness.service.get(job_id))["error"] is None


async def test_a_job_cancelled_before_it_began_never_runs(own_nats: RunningNats) -> None:
    async with job_harness(own_nats.url, SETTINGS) as harness:
        job_id = (await harness.submit())["id"]
        assert (await harness.service.cancel(job_id))["status"] == "cancelled"
        record, _ = await harness.take(job_id)
        assert record is None
        await until_stored(harness, "RUNS", 0)


async def test_concurrent_submissions_with_one_key_are_one_job(own_nats: RunningNats) -> None:
    async with job_harness(own_nats.url, SETTINGS) as harness:
        jobs = await asyncio.gather(*(harness.submit("same", key="k") for _ in range(20)))
        assert len({job["id"] for job in jobs}) == 1
        await until_stored(harness, "RUNS", 1)


async def test_a_job_refused_by_a_full_queue_leaves_no_record(own_nats: RunningNats) -> None:
    async with job_harness(own_nats.url, SETTINGS) as harness:
        config = (await api(harness.bus, "STREAM.INFO.RUNS"))["config"]
        await api(harness.bus, "STREAM.UPDATE.RUNS", config | {"max_msgs_per_subject": 2})
        for _ in range(2):
            await harness.submit()
        with pytest.raises(QueueFull):
            await harness.submit("one more", key="refused")
        assert len((await harness.service.list(limit=10))["data"]) == 2
        await api(harness.bus, "STREAM.UPDATE.RUNS", config)
        accepted = await harness.submit("one more", key="refused")
        assert accepted["status"] == "queued"
        await until_stored(harness, "RUNS", 3)


async def test_a_long_list_comes_in_pages_without_gaps(own_nats: RunningNats) -> None:
    async with job_harness(own_nats.url, SETTINGS) as harness:
        ids = [job["id"] for job in await asyncio.gather(*(harness.submit(str(n)) for n in range(700)))]
        seen: list[str] = []
        before = 0
        while True:
            page = await harness.service.list(limit=100, before=before)
            seen += [job["id"] for job in page["data"]]
            before = page["next"]
            if not before:
                break
        assert sorted(seen) == sorted(ids)


async def test_a_record_that_cannot_be_read_leaves_the_others_in_the_list(own_nats: RunningNats) -> None:
    async with job_harness(own_nats.url, SETTINGS) as harness:
        job = await harness.submit("readable")
        for number, junk in enumerate((b"", b"[1]", b"\xff", b'{"id": 1}')):
            await harness.bus.request(f"$KV.jobs.junk-{number}", junk)
        for viewer in (None, "somebody"):
            page = await harness.service.list(limit=10, viewer=viewer)
            assert [each["id"] for each in page["data"]] == ([job["id"]] if viewer is None else [])


async def test_only_dead_letters_of_jobs_can_be_retried(own_nats: RunningNats) -> None:
    async with job_harness(own_nats.url, SETTINGS) as harness:
        message = Message("generations.batch.echo", "", b"{}", {"Orchestra-Id": "asker.1"})
        await dead_letter(harness.bus, message, reason="for the test", attempts=1, error=None)
        letter = (await harness.dead_letters.list(limit=1))[0][0]
        with pytest.raises(InvalidRequest):
            await harness.dead_letters.retry(letter.number)
        await harness.dead_letters.drop(letter.number)
