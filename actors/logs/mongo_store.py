"""MongoDB as the log shipper uses it, by motor or by pymongo's own asynchronous client.

Both clients have the same methods; they differ in what has to be awaited, which `_settled` hides. This is the
only module that knows either.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from actors.installation.optional_imports import needs_extra
from actors.logs.mongo_schema import (
    EVENT_INDEXES,
    EVENTS,
    PENDING,
    ROLLUP_INDEXES,
    ROLLUP_STAGES,
    ROLLUPS,
    SchemaIndex,
    rollup_document,
)
from actors.logs.settings import MongoSettings
from orchestration.errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from pymongo.errors import BulkWriteError

log = logging.getLogger(__name__)

Document = dict[str, Any]
FULL_ERROR = ", full error: "
"""Comes before the server's whole answer in an error. That has a time, so it is another each time."""
DUPLICATE = 11_000
SAME_NAME, OTHER_OPTIONS = 86, 85
"""MongoDB's codes for an index that exists with another key or with other options."""
REFUSES_ALL = frozenset(
    {13, 18, 20, 50, 64, 91, 112, 189, 211, 262, 317, 8000, 10_058, 10_107, 11_600, 11_602, 13_388, 13_435}
    | {13_436, 14_031, 17_276}
)
"""MongoDB's codes for: not permitted, read only, no primary, shutting down, interrupted, timed out, no space
on the disk, and the like. They say nothing about the document."""
DAY_S = 86_400
CLOSE_S = 0.5
"""Time to take leave of the server."""


class StoreUnavailable(Unavailable):
    """MongoDB cannot write now: it is away, refuses writes, is full, or has an index that refuses events."""

    code = "log_store_unavailable"


class DocumentRefused(InvalidRequest):
    """A document among those given cannot be encoded or stored."""

    code = "document_refused"


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch. `refused` has the reason by the place of each document that was not written."""

    new: int
    known: int
    refused: dict[int, str] = field(default_factory=dict)


class MongoStore:
    """One client of MongoDB. Raises `StoreUnavailable` for whatever another attempt may cure."""

    def __init__(self, settings: MongoSettings) -> None:
        """Connects with the first call. Raises `InvalidRequest` for an address that cannot be used, and
        `ExtraMissing`."""
        self.settings = settings
        self.drifts: list[str] = []
        """Differences of collections and indexes from what is declared, that were left as they are."""
        self._client = _new_client(settings)
        self._errors = _client_errors()
        concern = _majority()
        database = self._client.get_database(settings.database, write_concern=concern)
        self._database = database
        self._events = database[EVENTS]
        self._rollups = database[ROLLUPS]
        self._pending = database[PENDING]

    async def close(self) -> None:
        """Close the client, which ends its sessions at the server if that answers within `CLOSE_S`."""
        from pymongo import timeout

        with timeout(CLOSE_S), suppress(TimeoutError):
            async with asyncio.timeout(2 * CLOSE_S):
                # motor closes in the thread that calls it
                await _settled(await asyncio.to_thread(self._client.close))

    async def prepare(self) -> None:
        """Create collections and indexes, apply a changed TTL, and note in `drifts` what differs."""
        self.drifts = []
        lifetimes = {EVENTS: self.settings.events_days, ROLLUPS: self.settings.rollups_days}
        for name, indexes in ((EVENTS, EVENT_INDEXES), (ROLLUPS, ROLLUP_INDEXES)):
            await self._prepare_collection(name, indexes, round(lifetimes[name] * DAY_S))
        for drift in self.drifts:
            log.warning("MongoDB: %s", drift)

    async def insert(self, documents: Sequence[Document]) -> Written:
        """Write events. One whose `_id` is there already is known. Raises `DocumentRefused` when one of them
        cannot be encoded, without saying which."""
        bulk_error, encode_errors, any_error = self._errors
        try:
            await self._within_timeout(self._events.insert_many(list(documents), ordered=False))
        except bulk_error as error:
            return self._outcome(error.details, len(documents))
        except encode_errors as error:
            raise DocumentRefused(f"{type(error).__name__}: {str(error)[:300]}") from error
        except (any_error, TimeoutError) as error:
            raise self._unavailable(error) from error
        return Written(len(documents), 0)

    async def probe(self) -> None:
        """Write something. Raises `StoreUnavailable` when MongoDB takes no writes."""
        await self._call(self._pending.update_one({"_id": "probe"}, {"$set": {"ok": True}}, upsert=True))

    async def progress(self, stream: str) -> int | None:
        """The place up to which `stream` was shipped when a shipper noted it last; None: never."""
        found = await self._call(self._pending.find_one({"_id": f"progress/{stream}"}))
        return int(found["place"]) if found else None

    async def note_progress(self, stream: str, place: int) -> None:
        """Note that `stream` is shipped up to `place`."""
        key = {"_id": f"progress/{stream}"}
        await self._call(self._pending.update_one(key, {"$set": {"place": place}}, upsert=True))

    async def mark(self, minutes: Iterable[datetime], shipper: str) -> None:
        """Note before events are written that the roll-ups of these minutes must be computed."""
        updates, now = [], datetime.now(UTC)
        for minute in minutes:
            values = {"minute": minute, "shipper": shipper, "stamp": token_hex(8), "marked_at": now}
            updates.append(self._update({"_id": f"{minute:%Y-%m-%dT%H:%M}/{shipper}"}, values))
        if updates:
            await self._call(self._pending.bulk_write(updates, ordered=False))

    async def marked(self, shipper: str, others_before: datetime) -> list[datetime]:
        """The minutes that this shipper has to compute, and those that others marked before `others_before`
        and have not computed."""
        found = await self._marks(shipper, others_before, {"$exists": True})
        return sorted({each["minute"].replace(tzinfo=UTC) for each in found})

    async def _marks(self, shipper: str, others_before: datetime, minute: Any) -> list[Document]:
        whose = [{"shipper": shipper}, {"marked_at": {"$lt": others_before}}]
        query = {"minute": minute, "$or": whose}
        found: list[Document] = await self._call(_listed(self._pending.find(query)))
        return found

    async def roll_up(
        self, minute: datetime, shipper: str, others_before: datetime, *, more_come: bool = False
    ) -> int:
        """Compute the roll-ups of a minute from its events, and delete the marks that were there before; one
        that was set again meanwhile stays, and with `more_come` all do. Returns their number."""
        marks = await self._marks(shipper, others_before, minute)
        span = {"$gte": minute, "$lt": minute + timedelta(minutes=1)}
        pipeline: list[Mapping[str, Any]] = [{"$match": {"at": span}}, *ROLLUP_STAGES]
        groups = await self._call(_listed(self._events.aggregate(pipeline)))
        updates = [
            self._update({"_id": key}, values)
            for key, values in (rollup_document(minute, group) for group in groups)
        ]
        if updates:
            await self._call(self._rollups.bulk_write(updates, ordered=False))
        for mark in () if more_come else marks:
            await self._call(self._pending.delete_one({"_id": mark["_id"], "stamp": mark["stamp"]}))
        return len(updates)

    async def _prepare_collection(self, name: str, indexes: Sequence[SchemaIndex], lifetime_s: int) -> None:
        collection = self._database[name]
        present: dict[str, Any] = await self._call(collection.index_information())
        for index in indexes:
            await self._prepare_index(name, index, present.get(index.name), lifetime_s)
        for other in present.keys() - {index.name for index in indexes} - {"_id_"}:
            if present[other].get("unique"):
                self.drifts.append(
                    f"index {other!r} of {name} is unique and not of Orchestra: it refuses events; drop it"
                )

    async def _prepare_index(
        self, name: str, index: SchemaIndex, present: Mapping[str, Any] | None, lifetime_s: int
    ) -> None:
        keys = [tuple(each) for each in present["key"]] if present is not None else None
        if present is None:
            try:
                await self._call(self._database[name].create_index(index.keys, **index.options(lifetime_s)))
            except StoreUnavailable as error:
                code = getattr(error.__cause__, "code", None)
                if code not in (SAME_NAME, OTHER_OPTIONS):
                    raise
                self.drifts.append(f"index {index.name!r} of {name} cannot be created: {error.message}")
        elif keys != list(index.keys):
            self.drifts.append(f"index {index.name!r} of {name} has the keys {keys}, not {list(index.keys)}")
        elif index.expires and present.get("expireAfterSeconds") != lifetime_s:
            change = {"name": index.name, "expireAfterSeconds": lifetime_s}
            await self._call(self._database.command("collMod", name, index=change))
            log.info("MongoDB: %s are deleted after %d days now", name, lifetime_s // DAY_S)

    @staticmethod
    def _update(key: Document, values: Document) -> Any:
        from pymongo import UpdateOne

        return UpdateOne(key, {"$set": values}, upsert=True)

    async def _call(self, call: Any) -> Any:
        try:
            return await self._within_timeout(call)
        except (self._errors[2], TimeoutError) as error:
            raise self._unavailable(error) from error

    async def _within_timeout(self, call: Any) -> Any:
        """The result of a call. On Python 3.11 `asyncio.wait_for` loses a cancellation that comes together
        with the result, and who is cancelled goes on for ever."""
        async with asyncio.timeout(self.settings.timeout_s):
            return await _settled(call)

    def _outcome(self, details: Mapping[str, Any], count: int) -> Written:
        """What a bulk error says. Only a duplicate `_id` counts as written."""
        concern = details.get("writeConcernErrors") or ()
        if concern:
            raise StoreUnavailable(f"MongoDB did not confirm a write by a majority: {_text(concern[0])}")
        known, refused = 0, {}
        for problem in details.get("writeErrors", ()):
            if problem.get("code") == DUPLICATE:
                if not _is_of_id(problem):
                    raise StoreUnavailable(
                        f"a unique index that is not of Orchestra refuses events: {_text(problem)}; drop it"
                    )
                known += 1
            elif problem.get("code") in REFUSES_ALL:
                raise StoreUnavailable(f"MongoDB error {problem['code']}: {_text(problem)}")
            else:
                refused[int(problem["index"])] = f"MongoDB error {problem.get('code')}: {_text(problem)}"
        return Written(count - known - len(refused), known, refused)

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        if isinstance(error, TimeoutError):
            return StoreUnavailable(f"MongoDB did not answer within {self.settings.timeout_s:g} s")
        text = str(error).partition(FULL_ERROR)[0]
        return StoreUnavailable(f"MongoDB: {type(error).__name__}: {text[:300]}")


def _is_of_id(problem: Mapping[str, Any]) -> bool:
    pattern = problem.get("keyPattern")
    return list(pattern) == ["_id"] if pattern else " _id_ " in problem.get("errmsg", "")


def _text(problem: Mapping[str, Any]) -> str:
    """MongoDB's words, without the values of the document."""
    return str(problem.get("errmsg", problem.get("code", "unknown"))).partition(" dup key")[0][:300]


async def _settled(value: Any) -> Any:
    """The value, awaited where this client returns an awaitable."""
    return await value if inspect.isawaitable(value) else value


async def _listed(cursor: Any) -> list[Document]:
    found: list[Document] = await _settled((await _settled(cursor)).to_list(None))
    return found


def _new_client(settings: MongoSettings) -> Any:
    timeout_ms = round(settings.timeout_s * 1000)
    options: Document = {
        "serverSelectionTimeoutMS": timeout_ms,
        "connectTimeoutMS": timeout_ms,
        "socketTimeoutMS": timeout_ms,  # else a thread of motor waits for ever for a frozen server
        "appname": "orchestra-logs",
        "retryWrites": True,
    }
    with needs_extra("mongodb", "logs.mongodb.url"):
        from pymongo import AsyncMongoClient
        from pymongo.errors import ConfigurationError, InvalidURI

        if settings.driver == "motor":
            from motor.motor_asyncio import AsyncIOMotorClient

            options["io_loop"] = asyncio.get_running_loop()
            return _checked(
                AsyncIOMotorClient, settings.url, options, (ConfigurationError, InvalidURI, ValueError)
            )
    return _checked(AsyncMongoClient, settings.url, options, (ConfigurationError, InvalidURI, ValueError))


def _checked(client: Any, url: str, options: Document, errors: tuple[type[Exception], ...]) -> Any:
    try:
        return client(url, **options)
    except errors as error:
        raise InvalidRequest(
            f"logs.mongodb.url is no address of MongoDB ({type(error).__name__}); it has the form "
            "mongodb://USER:PASSWORD@HOST:PORT/, with special characters of the password as %XX",
            param="logs.mongodb.url",
        ) from error


def _client_errors() -> tuple[type[BulkWriteError], tuple[type[Exception], ...], type[Exception]]:
    """The errors of a bulk, those of encoding, and any error of the client."""
    from bson.errors import BSONError
    from pymongo.errors import BulkWriteError, DocumentTooLarge, PyMongoError

    return BulkWriteError, (BSONError, OverflowError, UnicodeError, DocumentTooLarge), PyMongoError


def _majority() -> Any:
    from pymongo.write_concern import WriteConcern

    return WriteConcern(w="majority", j=True)
