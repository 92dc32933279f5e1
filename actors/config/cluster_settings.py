"""The settings of the cluster, which beat those of files: one document with its history, in one key.

One write of the document is one change of any number of settings, so that changes are atomic and in order.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field

from actors.bus.key_value import read_document
from orchestration.errors import OrchestraError
from orchestration.wire import Wire

BUCKET = "settings"
KEY = "cluster"
MAX_CHANGES = 100
"""Changes that are kept for history and undo; the oldest are dropped first."""
MAX_HISTORY_BYTES = 128 * 1024
MAX_DOCUMENT_BYTES = 448 * 1024
"""Below `max_value_kib` of the bucket."""
MAX_REASON = 500


class SettingsConflict(OrchestraError):
    """Someone else has changed the setting; the message says who, and what is there now."""

    status = 409
    code = "settings_conflict"


class UnknownChange(OrchestraError):
    """No change of the settings has this id."""

    status = 404
    code = "unknown_change"


class Stored(Wire):
    """A value in the document. None in a table removes the entry that a file has."""

    value: Any = None


class ValueChange(Wire):
    """What a change did to one setting. None: the cluster did not set it."""

    name: str
    before: Stored | None = None
    after: Stored | None = None

    @property
    def reversed(self) -> ValueChange:
        return ValueChange(name=self.name, before=self.after, after=self.before)


class SettingsChange(Wire):
    """One change of any number of settings. Its id is the revision of the document that it made."""

    id: int
    at: float
    """Unix time in seconds."""
    by: str
    """The admin, as the gateway that took the change knows the caller."""
    reason: str = ""
    undoes: int | None = None
    """The change that it undid."""
    attempt: str = ""
    """Identifies the call that made it, which finds it again after an acknowledgement was lost."""
    values: tuple[ValueChange, ...] = ()


class ClusterValue(Wire):
    """The value of one setting, and the change that set it."""

    value: Any = None
    revision: int = 0
    by: str = ""


class ClusterSettings(Wire):
    """The document. `values` are the settings by name, `changes` the history, the newest last."""

    revision: int = 0
    values: dict[str, ClusterValue] = Field(default_factory=dict)
    changes: tuple[SettingsChange, ...] = ()

    @classmethod
    def read(cls, value: bytes | None) -> ClusterSettings:
        """Parse the key's value. Raises `InvalidRequest` for one that no version of this class wrote."""
        problem = "is no document of settings"
        return read_document(cls, value, (BUCKET, KEY), problem, again="set them again")

    def get(self, name: str) -> Stored | None:
        found = self.values.get(name)
        return None if found is None else Stored(value=found.value)

    def changed(
        self,
        values: Iterable[ValueChange],
        *,
        by: str,
        reason: str,
        undoes: int | None = None,
        attempt: str = "",
    ) -> ClusterSettings:
        """The document after a change, with the change in its history."""
        change = SettingsChange(
            id=self.revision + 1,
            at=time.time(),
            by=by,
            reason=reason,
            undoes=undoes,
            attempt=attempt,
            values=tuple(values),
        )
        present = _apply(self.values, change)
        changes = _bounded((*self.changes, change))
        return ClusterSettings(revision=change.id, values=present, changes=changes)

    def before_last(self) -> ClusterSettings | None:
        """The document before its last change, as far as the history tells; None at its begin."""
        if not self.changes:
            return None
        *earlier, last = self.changes
        undone = last.model_copy(update={"id": last.id - 1, "values": tuple(v.reversed for v in last.values)})
        return ClusterSettings(
            revision=last.id - 1, values=_apply(self.values, undone), changes=tuple(earlier)
        )

    def change(self, change_id: int) -> SettingsChange:
        """The change with this id. Raises `UnknownChange`."""
        for change in self.changes:
            if change.id == change_id:
                return change
        kept = f"{self.changes[0].id} to {self.changes[-1].id}" if self.changes else "none"
        raise UnknownChange(
            f"no change {change_id} in the history, which keeps at most {MAX_CHANGES} changes: {kept}"
        )

    def undone_by(self, change_id: int) -> SettingsChange | None:
        """The change that undid this one, unless that was undone itself."""
        for change in reversed(self.changes):
            if change.undoes == change_id and self.undone_by(change.id) is None:
                return change
        return None

    def last_change(self, name: str, *, since: int = 0) -> SettingsChange | None:
        """The last change after revision `since` of this setting, or of one that it holds or is held by."""
        for change in reversed(self.changes):
            if change.id <= since:
                return None
            if any(related(name, each.name) for each in change.values):
                return change
        return None


def related(one: str, other: str) -> bool:
    """Whether the names are the same, or one holds the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _apply(values: Mapping[str, ClusterValue], change: SettingsChange) -> dict[str, ClusterValue]:
    present = dict(values)
    for each in change.values:
        if each.after is None:
            present.pop(each.name, None)
        else:
            present[each.name] = ClusterValue(value=each.after.value, revision=change.id, by=change.by)
    return present


def _bounded(changes: tuple[SettingsChange, ...]) -> tuple[SettingsChange, ...]:
    """The newest changes, within `MAX_CHANGES` and `MAX_HISTORY_BYTES`; at least the last one."""
    kept: list[SettingsChange] = []
    size = 0
    for change in reversed(changes[-MAX_CHANGES:]):
        size += len(change.model_dump_json())
        if kept and size > MAX_HISTORY_BYTES:
            break
        kept.append(change)
    return tuple(reversed(kept))
