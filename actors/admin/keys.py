"""The callers of gateways: their keys, limits and scopes, as operators see and change them."""

from __future__ import annotations

from dataclasses import replace
from secrets import token_urlsafe
from typing import Any

from pydantic import Field
from pydantic_core import to_json

from actors.admin.audit import Changed
from actors.admin.requests import ChangeRequest, NotThere, Refused
from actors.admin.settings import settings_changed
from actors.config.key_hash import hash_of
from actors.config.masking import shown
from actors.config.setting_names import dotted
from actors.config.settings_writer import ChangeNote, SettingsWriter
from actors.gateway.admission_settings import CallerLimits, CallerName, CallerSettings, Scope
from actors.gateway.operation import CallContext, NoFields, Reply
from actors.settings import Settings

CALLERS = ("gateway", "callers")
KEY_PREFIX = "ok-"
KEY_BYTES = 32
FIRST = "from now on every HTTP request needs a key"


class CallerChange(ChangeRequest):
    """A change of one caller."""

    name: CallerName
    """Name of the caller."""


class AddCaller(CallerChange):
    """A new caller. A limit that is not given is that of each caller."""

    scopes: tuple[Scope, ...] = ()
    """What the key may call: `inference`, `admin`. Default: `inference`."""
    namespace: CallerName | None = None
    """Callers of the same namespace share cached responses and jobs. Default: the caller alone."""
    requests_in_flight: int | None = Field(default=None, ge=1)
    """Maximum requests in flight."""
    queue_depth: int | None = Field(default=None, ge=1)
    """Maximum requests in flight without a first event."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Maximum tokens per minute."""
    unfinished_jobs: int | None = Field(default=None, ge=1)
    """Maximum unfinished jobs."""


class RemoveCaller(CallerChange):
    """A caller whose key shall not be valid any more."""

    open: bool = False
    """Remove even the last caller, after which HTTP needs no key."""


class KeysAdmin:
    """The handlers of the operations on callers. A key is shown once, when it is made; only its hash is
    kept."""

    def __init__(self, writer: SettingsWriter[Settings]) -> None:
        self.writer = writer

    async def list_keys(self, request: NoFields, call: CallContext) -> Reply:
        callers = await self._callers()
        data = [_caller(name, callers[name]) for name in sorted(callers)]
        return Reply(body=to_json({"object": "list", "data": data}))

    async def add(self, request: AddCaller, call: CallContext) -> Changed:
        """Raises `Refused` if there is a caller of that name."""
        callers = await self._callers()
        if request.name in callers:
            raise Refused(
                f"there is a caller {request.name!r}: rotate its key, or choose another name", param="name"
            )
        key = new_key()
        given = request.model_dump(include={*CallerLimits.model_fields, "scopes", "namespace"})
        values: dict[str, Any] = {name: value for name, value in given.items() if value}
        note = {} if callers else {"note": FIRST}
        return await self._set(request, call, {"key": key} | values, key=key, **note)

    async def rotate(self, request: CallerChange, call: CallContext) -> Changed:
        """Raises `NotThere`."""
        await self._caller(request.name)
        key = new_key()
        return await self._set(request, call, {"key": key}, key=key)

    async def remove(self, request: RemoveCaller, call: CallContext) -> Changed:
        """Raises `NotThere`, and `Refused` for the last caller."""
        await self._caller(request.name)
        name = dotted((*CALLERS, request.name))
        note = replace(_note(request, call), force=request.open)
        in_file = request.name in self.writer.hot.base.gateway.callers
        change = await (self.writer.set({name: None}, note) if in_file else self.writer.unset([name], note))
        return await settings_changed(self.writer, change, name=request.name)

    async def _set(
        self, request: CallerChange, call: CallContext, values: dict[str, Any], **more: Any
    ) -> Changed:
        named = {dotted((*CALLERS, request.name, field)): value for field, value in values.items()}
        change = await self.writer.set(named, _note(request, call))
        return await settings_changed(self.writer, change, name=request.name, **more)

    async def _callers(self) -> dict[str, CallerSettings]:
        return self.writer.hot.merged(await self.writer.document()).gateway.callers

    async def _caller(self, name: str) -> CallerSettings:
        callers = await self._callers()
        if name not in callers:
            raise NotThere.of("caller", name, callers, "name")
        return callers[name]


def keep_a_key(before: Settings, after: Settings) -> None:
    """A guard: the last caller goes only by force. Raises `Refused`."""
    if before.gateway.callers and not after.gateway.callers:
        raise Refused(
            "no caller would be left, and without callers HTTP needs no key: add another first, or say that "
            "it shall be open (force; `orchestra keys remove --open`)",
            param="force",
        )


def new_key() -> str:
    """A key that nobody can guess."""
    return KEY_PREFIX + token_urlsafe(KEY_BYTES)


def _note(request: CallerChange, call: CallContext) -> ChangeNote:
    return ChangeNote(by=call.operator, reason=request.reason)


def _caller(name: str, caller: CallerSettings) -> dict[str, Any]:
    """A caller in the list. Its key is shown by the begin of its hash, also one that a file has in plain."""
    hashed = hash_of(caller.key.get_secret_value())
    limits = {limit: getattr(caller, limit) for limit in CallerLimits.model_fields}
    return {
        "name": name,
        "key": shown(("key",), hashed),
        "scopes": caller.scopes,
        "namespace": caller.namespace,
    } | limits
