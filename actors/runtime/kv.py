"""Key-value buckets and leases, as plain publishes to the bucket's stream.

Publishing to `$KV.<bucket>.<key>` with `Nats-Expected-Last-Subject-Sequence` is what a KV client does
underneath, at half the cost.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from actors.runtime.bus import Bus, Message, Subscription
from actors.runtime.jetstream import WRONG_LAST_SEQUENCE
from actors.runtime.subjects import encode_token
from orchestration.errors import BusUnavailable, NobodyListens, OrchestraError

log = logging.getLogger(__name__)

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
OPERATION = "KV-Operation"


class Conflict(OrchestraError):
    """Someone else wrote the key first."""

    status = 409
    code = "conflict"


@dataclass(frozen=True, slots=True)
class Entry:
    """`value` is None for a key that was deleted."""

    key: str
    value: bytes | None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Bucket:
    """One declared bucket. Keys may be any text; they are encoded into one subject token."""

    bus: Bus
    name: str

    def subject(self, key: str) -> str:
        return f"$KV.{self.name}.{encode_token(key)}"

    async def put(self, key: str, value: bytes, *, last: int | None = None) -> int:
        """Write; returns the revision. `last` is the revision that must be there now (0: no such key).

        Raises `Conflict` when it is another, `BusUnavailable` when the bucket is not there.
        """
        headers = None if last is None else {EXPECTED: str(last)}
        try:
            reply = await self.bus.request(self.subject(key), value, headers=headers)
        except NobodyListens as error:
            raise BusUnavailable(f"bucket {self.name!r} is not there; was it declared?") from error
        answer = json.loads(reply.data)
        problem = answer.get("error")
        if problem is None:
            return int(answer["seq"])
        if problem.get("err_code") == WRONG_LAST_SEQUENCE:
            raise Conflict(f"{self.name}/{key} was written by someone else")
        raise OrchestraError(f"JetStream refused {self.name}/{key}: {problem.get('description', problem)}")

    async def delete(self, key: str) -> None:
        """Leave a delete marker, which watchers see at once. Not waited for."""
        await self.bus.publish(self.subject(key), headers={OPERATION: "DEL"})

    async def get(self, key: str) -> Entry | None:
        """The latest value, or None for a key that is not there, expired or deleted."""
        entry = await self.latest(key)
        return None if entry.value is None else entry

    async def latest(self, key: str) -> Entry:
        """Like `get`, but tells the revision of a delete marker; revision 0 means that nothing is there."""
        reply = await self.bus.request(f"$JS.API.DIRECT.GET.KV_{self.name}.{self.subject(key)}")
        if reply.status:
            return Entry(key, None)
        value = None if reply.header(OPERATION) else reply.data
        return Entry(key, value, int(reply.header("Nats-Sequence", "0")))

    async def watch(self, changed: Callable[[bytes | None, str], None]) -> Subscription:
        """Call `changed(value, subject)` for every write from now on, and once for each present key.

        `value` is None for a delete. Writes are plain messages on the bucket's subjects, so this is one
        subscription and no consumer; an entry that expires says nothing, so readers watch the clock.
        """

        def seen(message: Message) -> None:
            deleted = message.header(OPERATION)
            changed(None if deleted else message.data, message.subject)

        subscription = await self.bus.subscribe(f"$KV.{self.name}.*", seen)
        await self.bus.flush()
        await self.replay(changed)
        return subscription

    async def replay(self, changed: Callable[[bytes | None, str], None]) -> None:
        """Call `changed` for each key that is there now."""
        names = json.dumps({"subjects_filter": f"$KV.{self.name}.>"}).encode()
        info = json.loads((await self.bus.request(f"$JS.API.STREAM.INFO.KV_{self.name}", names)).data)
        for subject in info.get("state", {}).get("subjects", {}):
            reply = await self.bus.request(f"$JS.API.DIRECT.GET.KV_{self.name}.{subject}")
            if not reply.status and not reply.header(OPERATION):
                changed(reply.data, subject)


class Lease:
    """A key that lives while its holder renews it; the bucket's TTL ends it otherwise."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self.bucket = bucket
        self.key = key
        self.revision = 0

    async def hold(self, value: bytes) -> None:
        """Create or renew. Raises `Conflict` when another holder has the key.

        After an expiry (this process was paused, or NATS was away) the key is created anew.
        """
        try:
            self.revision = await self.bucket.put(self.key, value, last=self.revision)
        except Conflict:
            present = await self.bucket.latest(self.key)
            if present.value is not None:
                raise
            self.revision = await self.bucket.put(self.key, value, last=present.revision)

    async def release(self) -> None:
        await self.bucket.delete(self.key)
        self.revision = 0
