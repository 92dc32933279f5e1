"""What of an answer is kept, and what is found again in the bucket that gateways share."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from actors.bus.bus import Bus
from actors.bus.key_value import Bucket
from actors.gateway.admission_settings import CacheSettings
from actors.gateway.response_cache import CachedResponse, ResponseCache, cacheable_events
from orchestration.errors import BackendFailed
from orchestration.messages import (
    Finish,
    GenerationEnd,
    Progress,
    RunEnd,
    Step,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    Usage,
    Vectors,
)
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import api, declare_bucket

USAGE = Usage(prompt_tokens=3, completion_tokens=2)
ENDED = GenerationEnd(finish=Finish(reason="stop", usage=USAGE, node="n", model="m"), trace_id="ab" * 16)
ANSWER: tuple[StreamEvent, ...] = (TextDelta(text="hello"), ENDED)


@pytest.fixture
async def bucket(bus: Bus) -> AsyncIterator[Bucket]:
    bucket = Bucket(bus, f"b-{uuid4().hex[:8]}")
    await declare_bucket(bus, bucket.name)
    yield bucket
    await api(bus, f"STREAM.DELETE.KV_{bucket.name}")


def kept_in(bucket: Bucket, **settings: float) -> ResponseCache:
    kept = ResponseCache(bucket.bus, CacheSettings.model_validate(settings))
    kept.bucket = bucket
    return kept


async def found(kept: ResponseCache, key: str) -> tuple[StreamEvent, ...]:
    """Wait until it is in the bucket."""
    events: tuple[StreamEvent, ...] = await eventually(lambda: kept.shared(key, None))
    return events


def test_chunks_are_joined_and_news_of_the_progress_left_out() -> None:
    logprob = TokenLogprob(token="a", logprob=-0.5)
    events: list[StreamEvent] = [
        Progress(text="thinking"),
        TextDelta(text="a", logprobs=(logprob,)),
        TextDelta(text="b", tokens=2),
        ENDED,
    ]
    assert cacheable_events(events) == (
        TextDelta(text="ab", tokens=3, logprobs=(logprob,)),
        ENDED.model_copy(update={"trace_id": ""}),
    )
    corrected = TextDelta(text=", no: c", tokens=4, replaces=6)
    (kept, _) = cacheable_events([*events[:-1], corrected, ENDED]) or ()
    assert kept == TextDelta(text="c", tokens=7)
    vectors: list[StreamEvent] = [Vectors(index=0, vectors=("x",)), Vectors(index=1, vectors=("y",))]
    assert cacheable_events([*vectors, ENDED]) == (
        *vectors,
        ENDED.model_copy(update={"trace_id": ""}),
    )
    assert cacheable_events([ENDED]) == (ENDED.model_copy(update={"trace_id": ""}),)


@pytest.mark.parametrize(
    "end",
    [
        GenerationEnd(finish=Finish(reason="cancelled")),
        GenerationEnd(finish=Finish(reason="error")),
        GenerationEnd(finish=Finish(reason="stop"), error=BackendFailed("x").body()),
        RunEnd(
            finish=Finish(reason="stop"),
            steps=(Step(name="s", agent="a", error=BackendFailed("x").body()),),
        ),
    ],
)
def test_an_answer_that_did_not_end_well_is_not_one_to_keep(end: GenerationEnd | RunEnd) -> None:
    assert cacheable_events([TextDelta(text="a"), end]) is None
    assert cacheable_events([TextDelta(text="a")]) is None


async def test_what_one_process_keeps_another_finds_and_then_holds_itself(bucket: Bucket) -> None:
    one, other = kept_in(bucket), kept_in(bucket)
    one.store("k", ANSWER, ttl_s=60)
    assert other.local("k", None) is None
    expected = cacheable_events(ANSWER)
    assert await found(other, "k") == expected
    assert one.local("k", None) == other.local("k", None) == expected


async def test_an_entry_keeps_its_age_wherever_it_is_found(bucket: Bucket) -> None:
    now = time.time()
    for key, record in {
        "old": CachedResponse(stored_at=now - 50, expires_at=now + 50, events=ANSWER),
        "expired": CachedResponse(stored_at=now - 50, expires_at=now - 1, events=ANSWER),
    }.items():
        await bucket.put(key, record.model_dump_json().encode())
    kept = kept_in(bucket)
    assert await kept.shared("expired", None) is None
    assert await kept.shared("old", 49) is None
    assert await kept.shared("old", 60) == ANSWER
    assert kept.local("old", 49) is None
    assert kept.local("old", 70) == ANSWER


async def test_what_cannot_be_read_or_is_not_there_is_as_if_it_had_not_been_asked_for(
    bus: Bus, bucket: Bucket
) -> None:
    await bucket.put("broken", b'{"stored_at": 1')
    await bucket.put("other version", b'{"stored_at": 1, "expires_at": 9e12, "events": [{"type": "novel"}]}')
    await bucket.put("deleted", b"x")
    await bucket.delete("deleted")
    kept = kept_in(bucket)
    for key in ("broken", "other version", "deleted", "never there"):
        assert await kept.shared(key, None) is None
    nowhere = kept_in(Bucket(bus, "never-declared"))
    nowhere.store("k", ANSWER, ttl_s=60)
    assert nowhere.local("k", None) is not None
    assert await nowhere.shared("k", None) is None


async def test_responses_are_still_cached_locally_without_nats(bucket: Bucket, bus: Bus) -> None:
    kept = kept_in(bucket)
    bus.ready = False
    try:
        kept.store("k", ANSWER, ttl_s=60)
        assert kept.local("k", None) is not None
        assert await kept.shared("other", None) is None
    finally:
        bus.ready = True


async def test_a_long_response_is_not_cached(bucket: Bucket) -> None:
    kept = kept_in(bucket, max_answer_bytes=2048)
    kept.store("k", [TextDelta(text="x" * 3000), ENDED], ttl_s=60)
    kept.store("next", ANSWER, ttl_s=60)
    await found(kept_in(bucket), "next")
    assert kept.local("k", None) is None
    assert await kept.shared("k", None) is None
