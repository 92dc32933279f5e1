"""Shows and changes the settings of the cluster, for the admin API."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from actors.bus.bus import Bus
from actors.bus.key_value import Bucket, Entry
from actors.config.cluster_settings import (
    BUCKET,
    KEY,
    MAX_DOCUMENT_BYTES,
    MAX_REASON,
    ClusterSettings,
    SettingsChange,
    SettingsConflict,
    Stored,
    ValueChange,
    related,
)
from actors.config.followers import FOLLOW_S, FollowerState, ask_followers
from actors.config.hot_settings import HotSettings
from actors.config.key_hash import hash_of
from actors.config.setting_names import SettingName, find_setting, leaves_of, require_hot
from actors.config.settings_rows import SettingRow, masked_change, rows_of
from orchestration.errors import BusUnavailable, DeadlineExceeded, InvalidRequest

T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)

RETRY_S = 15.0
"""How long a change is tried again while NATS is away, or elects a leader because a server died."""
RETRY_PAUSE_S = 0.1
MAX_INTEGER = 2**53
"""Maximum whole number: JSON's readers keep it exactly, and the audit's database has 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeNote:
    """Who changes something and why. With `expected_revision`, the change is refused if one of its settings
    was changed after that revision. With `dry_run` it is checked and returned, and not made. `force` makes
    what a guard refuses, and undoes what was changed later."""

    by: str
    reason: str = ""
    expected_revision: int | None = None
    dry_run: bool = False
    force: bool = False


class SettingsWriter(Generic[S]):
    """`hot` are the settings of this process, which check a change before it is written. Each of `guards`
    gets the settings now and after a change, and raises an error for one that would do harm."""

    def __init__(self, bus: Bus, hot: HotSettings[S], guards: Sequence[Callable[[S, S], None]] = ()) -> None:
        self.bus = bus
        self.hot = hot
        self.guards = guards
        self.bucket = Bucket(bus, BUCKET)

    async def document(self) -> ClusterSettings:
        """The newest document. Raises `BusUnavailable`."""
        return ClusterSettings.read((await self._patiently(self._latest)).value)

    async def show(self, prefix: str = "") -> list[SettingRow]:
        """All settings, or those at or below a dotted name. Raises `InvalidRequest` for an unknown one."""
        document = await self.document()
        return await asyncio.to_thread(rows_of, self.hot, document, prefix)

    async def set(self, values: Mapping[str, Any], note: ChangeNote) -> SettingsChange | None:
        """Set values by name, all or none. A whole section or table sets what is in it; None removes an entry
        of a table. Returns the change; None if everything was so already.

        Raises `InvalidRequest` for a setting that is unknown, not hot or out of range, `SettingsConflict`,
        and `BusUnavailable`.
        """
        model = self.hot.model
        leaves: dict[str, Any] = {}
        for name, value in values.items():
            for setting, leaf in leaves_of(require_hot(model, name), value, model):
                leaves[str(setting)] = self._stored(setting, leaf)

        def edits(document: ClusterSettings) -> list[ValueChange]:
            removed = [name for name, value in leaves.items() if value is None and self._entry(name)]
            below = [
                held
                for held in document.values
                if any(held.startswith(f"{name}.") for name in removed) and held not in leaves
            ]
            return [
                *(
                    ValueChange(name=name, before=document.get(name), after=Stored(value=value))
                    for name, value in leaves.items()
                ),
                *(ValueChange(name=name, before=document.get(name)) for name in below),
            ]

        return await self._change(edits, note)

    async def unset(self, names: Iterable[str], note: ChangeNote) -> SettingsChange | None:
        """Remove the cluster's values at and below `names`, so that those of files hold. Raises as `set`."""
        wanted = [str(find_setting(self.hot.model, name)) for name in names]

        def edits(document: ClusterSettings) -> list[ValueChange]:
            found = [
                name
                for name in document.values
                if any(name == each or name.startswith(f"{each}.") for each in wanted)
            ]
            return [ValueChange(name=name, before=document.get(name)) for name in found]

        return await self._change(edits, note)

    async def undo(self, change_id: int, note: ChangeNote) -> SettingsChange | None:
        """Set back what a change changed, as a new change.

        Raises `UnknownChange`; `SettingsConflict` if it is undone already, or if one of its settings was
        changed since, unless the note has `force`; and as `set`.
        """

        def edits(document: ClusterSettings) -> list[ValueChange]:
            change = document.change(change_id)
            undone = document.undone_by(change_id)
            if undone is not None:
                raise SettingsConflict(
                    f"change {change_id} is undone already, by {undone.by} with change {undone.id}: "
                    f"undo {undone.id} to make it again"
                )
            for each in change.values:
                later = document.last_change(each.name, since=change_id)
                if later is not None and not note.force and document.get(each.name) != each.after:
                    raise SettingsConflict(
                        f"setting {each.name} was changed after change {change_id}, by {later.by} with "
                        f"change {later.id}: undo that first, or force",
                        param=each.name,
                    )
            return [
                ValueChange(name=each.name, before=document.get(each.name), after=each.before)
                for each in change.values
            ]

        return await self._change(edits, note, undoes=change_id)

    async def history(self, limit: int = 20) -> list[SettingsChange]:
        """The last changes, the newest first, with secrets masked."""
        changes = (await self.document()).changes
        return [masked_change(change) for change in changes[: -limit - 1 : -1]]

    def pinned(self, names: Iterable[str]) -> dict[str, str]:
        """The names that the environment or the command line of this process pins, and which does. The
        cluster's value has no effect there."""
        found: dict[str, str] = {}
        for name in names:
            with suppress(InvalidRequest):  # of another version
                found[name] = self.hot.pinned(find_setting(self.hot.model, name).path)
        return {name: origin for name, origin in found.items() if origin}

    async def followers(self, revision: int, *, within_s: float = FOLLOW_S) -> list[FollowerState]:
        """The state of each process: see `ask_followers`."""
        return await ask_followers(self.bus, revision, within_s=within_s)

    async def _change(
        self,
        edits: Callable[[ClusterSettings], list[ValueChange]],
        note: ChangeNote,
        undoes: int | None = None,
    ) -> SettingsChange | None:
        if len(note.reason) > MAX_REASON:
            raise InvalidRequest(
                f"the reason has {len(note.reason)} characters; the limit is {MAX_REASON}", param="reason"
            )
        made: SettingsChange | None = None
        attempt = token_hex(8)

        async def edit(entry: Entry) -> bytes | None:
            nonlocal made
            document = ClusterSettings.read(entry.value)
            made = next((change for change in document.changes if change.attempt == attempt), None)
            if made is not None:  # its acknowledgement was lost
                return None
            values = [each for each in edits(document) if each.before != each.after]
            if not values:
                return None
            self._check_unchanged(document, values, note)
            changed = document.changed(values, by=note.by, reason=note.reason, undoes=undoes, attempt=attempt)
            await asyncio.to_thread(self._check, changed, note.force)
            made = changed.changes[-1]
            return None if note.dry_run else changed.model_dump_json().encode()

        await self._patiently(lambda: self.bucket.update(KEY, edit))
        return made

    def _check_unchanged(
        self, document: ClusterSettings, values: Iterable[ValueChange], note: ChangeNote
    ) -> None:
        """Raise `SettingsConflict` if another changed one of the settings after the expected revision."""
        expected = note.expected_revision
        if expected is None or expected == document.revision:
            return
        if expected > document.revision:
            raise SettingsConflict(
                f"revision {expected} is expected, and the settings are at revision {document.revision}"
            )
        for each in values:
            later = document.last_change(each.name, since=expected)
            if later is None:
                continue
            there = ", ".join(
                f"{e.name} = {e.after.value if e.after is not None else '(not set)'}"
                for e in masked_change(later).values
                if related(e.name, each.name)
            )
            raise SettingsConflict(
                f"setting {each.name} was changed by {later.by} with change {later.id}, after revision "
                f"{expected}: now {there}",
                param=each.name,
            )
        if document.changes and document.changes[0].id > expected + 1:
            raise SettingsConflict(
                f"revision {expected} is older than the history, which begins with {document.changes[0].id}: "
                "look again, and repeat the change"
            )

    def _check(self, after: ClusterSettings, force: bool) -> None:
        """Raise `InvalidRequest` if the document would not be valid, in general or in this process; and what
        the guards raise."""
        self.hot.merged(after, pins=False)
        settings = self.hot.merged(after)
        if not force:
            for guard in self.guards:
                guard(self.hot.settings, settings)
        size = len(after.model_dump_json())
        if size > MAX_DOCUMENT_BYTES:
            raise InvalidRequest(
                f"the cluster's settings would have {size} bytes; the limit is {MAX_DOCUMENT_BYTES}: "
                "keep long texts in files"
            )

    def _stored(self, setting: SettingName, value: Any) -> Any:
        """The value as the document has it: secrets hashed, texts of the command line decoded."""
        if setting.secret and isinstance(value, str):
            self._check_alone(setting, value)
            return hash_of(value)
        if isinstance(value, str) and not setting.is_text:
            try:
                value = json.loads(value)
            except ValueError:
                return value
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidRequest(f"setting {setting}: {value} is not a finite number", param=str(setting))
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise InvalidRequest(
                f"setting {setting}: the number is beyond {MAX_INTEGER}, the largest that logs keep exactly",
                param=str(setting),
            )
        return to_jsonable_python(value)

    def _check_alone(self, setting: SettingName, value: str) -> None:
        """Check a secret before it is hashed, as a hash has always the same length."""
        document = ClusterSettings().changed(
            [ValueChange(name=str(setting), after=Stored(value=value))], by="", reason=""
        )
        self.hot.merged(document, pins=False)

    def _entry(self, name: str) -> bool:
        return find_setting(self.hot.model, name).is_entry

    async def _latest(self) -> Entry:
        return await self.bucket.latest(KEY, sure=True)

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Repeat `work`, which is harmless to repeat, while NATS is away, for `RETRY_S` seconds at most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + RETRY_S
        while True:
            try:
                await self.bus.wait_connected(max(0.0, end - loop.time()))
                return await work()
            except (BusUnavailable, DeadlineExceeded) as error:
                if loop.time() >= end:
                    raise BusUnavailable(
                        f"NATS did not answer for {RETRY_S:g} s, so the settings may be changed or not: see "
                        f"`orchestra config history` before the next try ({error.message})"
                    ) from error
                await asyncio.sleep(RETRY_PAUSE_S)
