"""Key-value buckets and leases, as plain publishes to the bucket's stream.

Publishing to `$KV.<bucket>.<key>` with `Nats-Expected-Last-Subject-Sequence` is what a KV client does
underneath, at half the cost.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
from base64 import b64decode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import TypeVar

from pydantic import ValidationError

from actors.bus.bus import Bus, Headers, Message, Subscription
from actors.bus.jetstream import QUEUE_FULL_CODES, WRONG_LAST_SEQUENCE
from actors.bus.message import decode_headers
from actors.bus.subjects import encode_token
from orchestration.errors import (
    BusUnavailable,
    InternalError,
    InvalidRequest,
    NoResponders,
    OrchestraError,
    QueueFull,
)
from orchestration.wire import Wire

log = logging.getLogger(__name__)

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
OPERATION = "KV-Operation"
SEQUENCE = "Nats-Sequence"
HOLDER = "Orchestra-Holder"
"""Name of the process that wrote the value, such as the holder of a lease."""
NO_MESSAGE = 10037
"""JetStream's code for a subject without a message."""
MAX_UPDATE_TRIES = 20
UPDATE_BACKOFF_S = 0.005
"""The pause after the n-th conflict of an update is random, at most this long times 2 to the n, and at most
64 times this long. In a cluster the write that won may still be on its way to the other servers."""

Changed = Callable[[bytes | None, str], None]
W = TypeVar("W", bound=Wire)


class Conflict(OrchestraError):
    """Another writer wrote the key first."""

    status = 409
    code = "conflict"


def read_document(
    kind: type[W], value: bytes | None, place: tuple[str, str], problem: str, *, again: str
) -> W:
    """The document of a key, an empty one for None; `place` is its bucket and key. Raises `InvalidRequest`
    with the `problem` of a value that no version has written, and what to do `again` after its deletion."""
    if value is None:
        return kind()
    try:
        return kind.model_validate_json(value)
    except ValidationError as error:
        bucket, key = place
        raise InvalidRequest(
            f"the key {key!r} of the bucket {bucket!r} {problem} ({error.error_count()} errors): delete the "
            f"key, and {again}"
        ) from error


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a bucket, as it was read."""

    key: str
    value: bytes | None
    """None for a deleted key."""
    revision: int = 0
    """Sequence of the write in the stream of the bucket; 0: the key does not exist."""
    holder: str = ""
    """Identifies the lease that wrote the entry; '': none."""


Edit = Callable[[Entry], bytes | Awaitable[bytes | None] | None]


@dataclass(frozen=True, slots=True)
class Bucket:
    """One declared bucket. Keys may be any text; they are encoded into one subject token."""

    bus: Bus
    name: str

    def subject(self, key: str) -> str:
        return f"$KV.{self.name}.{encode_token(key)}"

    async def put(self, key: str, value: bytes, *, last: int | None = None, holder: str = "") -> int:
        """Write; returns the revision. `last` is the revision that must be there now (0: no such key).

        Raises `Conflict` when it is another, `BusUnavailable` when the bucket is not there.
        """
        return await self._write(key, value, {HOLDER: holder} if holder else {}, last)

    async def _write(self, key: str, value: bytes, headers: Headers, last: int | None) -> int:
        if last is not None:
            headers[EXPECTED] = str(last)
        try:
            reply = await self.bus.request(self.subject(key), value, headers=headers)
        except NoResponders as error:
            raise BusUnavailable(f"bucket {self.name!r} does not exist; was it declared?") from error
        answer = json.loads(reply.data)
        problem = answer.get("error")
        if problem is None:
            return int(answer["seq"])
        description = problem.get("description", problem)
        if problem.get("err_code") in WRONG_LAST_SEQUENCE:
            raise Conflict(f"{self.name}/{key} was written by another writer")
        if problem.get("err_code") in QUEUE_FULL_CODES:
            raise QueueFull(f"bucket {self.name!r} is full", retry_after_s=1)
        if problem.get("code", 500) >= 500:
            raise BusUnavailable(f"JetStream cannot write {self.name}/{key} now: {description}")
        raise InternalError(f"JetStream refused {self.name}/{key}: {description}")

    async def update(
        self,
        key: str,
        edit: Edit,
        *,
        expected: Entry | None = None,
        holder: str = "",
        sure: bool = True,
    ) -> Entry:
        """Write what `edit` makes of the present entry, and return the entry as it is afterwards.

        `edit`, a function or a coroutine function, gets an entry as `latest` returns it, and returns the new
        value, or None to write nothing. It is called again with a new entry after each conflict with another
        writer. What it raises ends the update. `expected` is the entry that is probably there; without it the
        entry is read first. `sure` decides how entries are read: see `latest`.

        Raises `BusUnavailable` after `MAX_UPDATE_TRIES` conflicts, and what `put` raises.
        """
        entry = expected
        for attempt in range(MAX_UPDATE_TRIES):
            if entry is None:
                entry = await self.latest(key, sure=sure)
            edited = edit(entry)
            value = await edited if inspect.isawaitable(edited) else edited
            if value is None:
                return entry
            try:
                revision = await self.put(key, value, last=entry.revision, holder=holder)
            except Conflict:
                entry = None
                if expected is None or attempt:
                    await asyncio.sleep(UPDATE_BACKOFF_S * random.uniform(0, min(64, 2**attempt)))
            else:
                return Entry(key, value, revision, holder)
        raise BusUnavailable(
            f"cannot update {self.name}/{key}: others wrote it before each of {MAX_UPDATE_TRIES} tries"
        )

    async def delete(self, key: str) -> None:
        """Write a delete marker, which watchers see at once; returns before the server has stored it."""
        await self.bus.publish(self.subject(key), headers={OPERATION: "DEL"})

    async def delete_at(self, key: str, last: int) -> None:
        """Delete the key if its revision is `last`. Raises `Conflict` otherwise."""
        await self._write(key, b"", {OPERATION: "DEL"}, last)

    async def get(self, key: str, *, sure: bool = False) -> Entry | None:
        """The latest entry; None when the key is missing, expired or deleted. `sure`: see `latest`."""
        entry = await self.latest(key, sure=sure)
        return None if entry.value is None else entry

    async def latest(self, key: str, *, sure: bool = False) -> Entry:
        """Like `get`, with the revision of a delete marker; revision 0 means that the key does not exist.

        In a cluster any server with a replica of the bucket answers, and may lack the latest write. With
        `sure` the leader of the bucket answers, which has it.
        """
        reply = await (self._leading if sure else self._direct)(self.subject(key))
        if reply.status:
            return Entry(key, None)
        value = None if reply.header(OPERATION) else reply.data
        return Entry(key, value, int(reply.header(SEQUENCE, "0")), reply.header(HOLDER))

    async def _direct(self, subject: str) -> Message:
        return await self._request(f"$JS.API.DIRECT.GET.KV_{self.name}.{subject}", b"")

    async def _leading(self, subject: str) -> Message:
        """The leader's entry, in the form of a direct answer."""
        body = json.dumps({"last_by_subj": subject}).encode()
        answer = json.loads((await self._request(f"$JS.API.STREAM.MSG.GET.KV_{self.name}", body)).data)
        problem = answer.get("error")
        if problem is None:
            found = answer["message"]
            headers = decode_headers(b64decode(found.get("hdrs", ""))) | {SEQUENCE: str(found["seq"])}
            return Message(subject, "", b64decode(found.get("data", "")), headers)
        if problem.get("err_code") == NO_MESSAGE:
            return Message(subject, "", b"", {"Status": "404"})
        raise BusUnavailable(
            f"bucket {self.name!r} cannot be read now: {problem.get('description', problem)}"
        )

    async def _request(self, subject: str, body: bytes) -> Message:
        try:
            return await self.bus.request(subject, body)
        except NoResponders as error:
            raise BusUnavailable(f"bucket {self.name!r} does not exist; was it declared?") from error

    async def watch(self, changed: Changed) -> Subscription:
        """Call `changed(value, subject)` for every write from now on, and once for each present key.

        `value` is None for a delete. The bucket must be declared as watched: the server then publishes each
        stored write again, so this needs one subscription and no consumer, and never sees a refused write.
        An expiry is not published: readers watch the clock.
        """
        newest: dict[str, int] = {}
        """Revisions by subject, while a value that is read may be older than one just received."""
        replayed = False

        def on_write(message: Message) -> None:
            subject = f"$KV.{message.subject.removeprefix('watch.')}"
            if not replayed:
                newest[subject] = int(message.header(SEQUENCE, "0"))
            changed(None if message.header(OPERATION) else message.data, subject)

        def present(value: bytes, subject: str, revision: int) -> None:
            if revision > newest.get(subject, 0):
                changed(value, subject)

        subscription = await self.bus.subscribe(f"watch.{self.name}.*", on_write)
        await self.bus.flush()
        await self._each(present)
        replayed = True
        newest.clear()
        return subscription

    async def replay(self, changed: Changed) -> None:
        """Call `changed` for each present key."""
        await self._each(lambda value, subject, revision: changed(value, subject))

    async def _each(self, found: Callable[[bytes, str, int], None]) -> None:
        names = json.dumps({"subjects_filter": f"$KV.{self.name}.>"}).encode()
        try:
            info = json.loads((await self.bus.request(f"$JS.API.STREAM.INFO.KV_{self.name}", names)).data)
        except NoResponders as error:
            raise BusUnavailable("this NATS server has no JetStream") from error
        if "error" in info:
            raise BusUnavailable(f"bucket {self.name!r}: {info['error'].get('description', 'not there')}")
        for subject in info.get("state", {}).get("subjects") or {}:
            reply = await self._direct(subject)
            if not reply.status and not reply.header(OPERATION):
                found(reply.data, subject, int(reply.header(SEQUENCE, "0")))


class Lease:
    """A key that exists while its holder renews it; the bucket's TTL removes it otherwise."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self.bucket = bucket
        self.key = key
        self.revision = 0
        self.holder = token_hex(8)

    async def hold(self, value: bytes) -> None:
        """Create or renew the key. Raises `Conflict` when another holder has it.

        After an expiry (this process was paused, or NATS was away) the key is created again. A write of this
        holder whose acknowledgement was lost counts as its own.
        """

        def edit(present: Entry) -> bytes:
            if present.value is not None and present.holder != self.holder:
                raise Conflict(f"{self.bucket.name}/{self.key} has another holder")
            return value

        expected = Entry(self.key, None, self.revision, self.holder)
        written = await self.bucket.update(self.key, edit, expected=expected, holder=self.holder, sure=False)
        self.revision = written.revision

    async def release(self) -> None:
        """Delete the key if this holder has it; another holder's key stays."""
        if not self.revision:
            return
        try:
            await self.bucket.delete_at(self.key, self.revision)
        except Conflict:
            present = await self.bucket.latest(self.key)
            if present.value is not None and present.holder == self.holder:
                with suppress(Conflict):
                    await self.bucket.delete_at(self.key, present.revision)
        self.revision = 0
