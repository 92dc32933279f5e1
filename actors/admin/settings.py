"""The settings of the cluster, as operators see and change them."""

from __future__ import annotations

from typing import Any

from pydantic import Field, JsonValue
from pydantic_core import to_json

from actors.admin.audit import Changed
from actors.admin.requests import ChangeRequest
from actors.config.cluster_settings import MAX_CHANGES, SettingsChange
from actors.config.followers import FollowerState
from actors.config.settings_rows import masked_change
from actors.config.settings_writer import ChangeNote, SettingsWriter
from actors.gateway.operation import CallContext, Reply
from orchestration.wire import Wire

MAX_NAMES = 200


class ListSettings(Wire):
    """Which settings."""

    prefix: str = Field(default="", max_length=512)
    """Dotted name of a setting or a section. Empty: all."""


class ListChanges(Wire):
    """How much of the history."""

    limit: int = Field(default=20, ge=1, le=MAX_CHANGES)
    """Maximum changes, the newest first; 1 to 100. Default: 20."""


class DryRunRequest(ChangeRequest):
    """A change of settings, or only the question what it would do."""

    dry_run: bool = False
    """Only check the change, and answer what it would be."""
    force: bool = False
    """Change it although that would do harm as things are, such as opening HTTP to clients without a key;
    undo it although one of its settings was changed later."""


class SettingsRequest(DryRunRequest):
    """A change of settings."""

    expected_revision: int | None = Field(default=None, ge=0)
    """The revision at which you saw the settings. If one of those that you change was changed later, the
    change is refused with 409. Not set: the change is made anyway."""


class SetSettings(SettingsRequest):
    """Values of hot settings, all or none of which are set."""

    values: dict[str, JsonValue] = Field(min_length=1, max_length=MAX_NAMES)
    """Values by dotted name; the values of a section or table may be an object. null removes an entry of a
    table, also one that files have."""


class UnsetSettings(SettingsRequest):
    """Settings that the cluster shall not set any more, so that files and defaults hold."""

    names: tuple[str, ...] = Field(min_length=1, max_length=MAX_NAMES)
    """Dotted names of settings or sections."""


class UndoSettings(SettingsRequest):
    """A change that shall be undone."""

    id: int = Field(ge=1)
    """Id of the change."""


class SettingsAdmin:
    """The handlers of the operations on settings."""

    def __init__(self, writer: SettingsWriter[Any]) -> None:
        self.writer = writer

    async def list_settings(self, request: ListSettings, call: CallContext) -> Reply:
        """The settings as this gateway uses them, with the layers they come from."""
        document = await self.writer.document()
        rows = await self.writer.show(request.prefix)
        return _reply(data=[row.model_dump(mode="json") for row in rows], revision=document.revision)

    async def history(self, request: ListChanges, call: CallContext) -> Reply:
        changes = await self.writer.history(request.limit)
        return _reply(data=[change.model_dump(mode="json") for change in changes])

    async def followers(self, request: ListSettings, call: CallContext) -> Reply:
        """Which revision each process uses."""
        revision = (await self.writer.document()).revision
        states = await self.writer.followers(revision)
        return _reply(revision=revision, data=[state.model_dump(mode="json") for state in states])

    async def set(self, request: SetSettings, call: CallContext) -> Changed:
        return await self._changed(request, await self.writer.set(request.values, note_of(request, call)))

    async def unset(self, request: UnsetSettings, call: CallContext) -> Changed:
        return await self._changed(request, await self.writer.unset(request.names, note_of(request, call)))

    async def undo(self, request: UndoSettings, call: CallContext) -> Changed:
        return await self._changed(request, await self.writer.undo(request.id, note_of(request, call)))

    async def _changed(self, request: DryRunRequest, change: SettingsChange | None) -> Changed:
        if change is None or not request.dry_run:
            return await settings_changed(self.writer, change)
        body = {"object": "settings.change", "change": masked_change(change).model_dump(mode="json")}
        return Changed(target="settings", before={}, after={}, changed=False, body=body | {"dry_run": True})


def note_of(request: DryRunRequest, call: CallContext) -> ChangeNote:
    """Who changes settings, why, and what was seen before."""
    expected = request.expected_revision if isinstance(request, SettingsRequest) else None
    return ChangeNote(
        by=call.operator,
        reason=request.reason,
        expected_revision=expected,
        dry_run=request.dry_run,
        force=request.force,
    )


async def settings_changed(
    writer: SettingsWriter[Any], change: SettingsChange | None, **more: Any
) -> Changed:
    """What a change of settings did, once the processes follow; `more` are further fields of the answer."""
    if change is None:
        return Changed(
            target="settings", before={}, after={}, changed=False, body={"object": "settings.change"} | more
        )
    masked = masked_change(change)
    states = await writer.followers(change.id)
    body: dict[str, Any] = {
        "object": "settings.change",
        "change": masked.model_dump(mode="json"),
        "follow": follow_text(states, change.id),
        "processes": [state.model_dump(mode="json") for state in states],
        "pinned": writer.pinned(each.name for each in masked.values),
    }
    return Changed(
        target=f"settings {', '.join(each.name for each in masked.values)}",
        before={each.name: None if each.before is None else each.before.value for each in masked.values},
        after={each.name: None if each.after is None else each.after.value for each in masked.values},
        body=body | more,
    )


def follow_text(states: list[FollowerState], revision: int) -> str:
    """How many processes use the revision, such as `3 of 3 processes follow`."""
    follow = sum(state.revision >= revision for state in states)
    others = [
        f"{state.process} {'refuses it: ' + state.refused if state.refused else f'is at {state.revision}'}"
        for state in states
        if state.revision < revision
    ]
    more = f"; {'; '.join(others)}" if others else ""
    return f"{follow} of {len(states)} processes follow{more}"


def _reply(**body: Any) -> Reply:
    return Reply(body=to_json({"object": "list"} | body))
