"""The settings of a running process, with those that the cluster sets while it runs.

Precedence, from weak to strong: default, file, the cluster's settings, environment, command line. So an admin
changes what a file says for all processes at once, while what the environment or the command line of one
process sets stays pinned there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from actors.config.cluster_settings import ClusterSettings
from actors.config.layers import COMMAND_LINE, settings_error
from actors.config.metrics import REFUSED, REVISION
from actors.config.setting_names import Path, related_paths, require_hot, value_at
from orchestration.errors import InvalidRequest

log = logging.getLogger(__name__)

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Applier(Generic[S]):
    path: Path
    apply: Callable[[S], None]


class HotSettings(Generic[S]):
    """`base` are the settings of this process without the cluster's, `origins` the sources of its values, as
    `load` returns both."""

    def __init__(self, base: S, origins: Mapping[str, str] | None = None) -> None:
        self.base = base
        self.origins = dict(origins or {})
        self.settings = base
        """The settings now. Take them again at each use, or register with `on_change`."""
        self.document = ClusterSettings()
        """The cluster's settings that this process uses."""
        self.refused = ""
        """Why this process does not use the newest document; '' if it does."""
        self._appliers: list[_Applier[S]] = []
        self._pins = {
            tuple(name.split(".")): origin for name, origin in self.origins.items() if _pins(origin)
        }

    @property
    def model(self) -> type[S]:
        return type(self.base)

    @property
    def revision(self) -> int:
        return self.document.revision

    def on_change(self, section: str, apply: Callable[[S], None], *, since: S) -> None:
        """Call `apply` with all settings after each change below `section`, a dotted name; and now, if they
        changed `since` the settings that the component was started with. It must not block or raise."""
        applier = _Applier(tuple(section.split(".")), apply)
        self._appliers.append(applier)
        self._call(applier, since)

    def origin(self, path: Path) -> str:
        """The source of a value of this process without the cluster's; '' for a default."""
        for length in range(len(path), 0, -1):
            origin = self.origins.get(".".join(path[:length]))
            if origin:
                return origin
        return ""

    def pinned(self, path: Path) -> str:
        """The environment variable or command line that pins the setting here; '' for none."""
        return next((origin for pin, origin in self._pins.items() if related_paths(pin, path)), "")

    def merged(self, document: ClusterSettings, *, pins: bool = True) -> S:
        """The settings of this process with those of `document`. With `pins` False nothing is pinned.

        Skips settings that this version does not know, or cannot change while it runs. Raises
        `InvalidRequest` if the rest is not valid together.
        """
        if not document.values:
            return self.base
        tree = self.base.model_dump(exclude_unset=True)
        for path, value, removes in self._usable(document)[0]:
            _put(tree, path, value, removes=removes)
        if pins:
            for path in self._pins:
                _put(tree, path, value_at(self.base, path), removes=False)
        origins = {
            name: origin_of(document, name)
            for name, held in document.values.items()
            if held.revision < document.revision  # what is new needs no source
        }
        try:
            return self.model.model_validate(tree)
        except ValidationError as error:
            raise settings_error(error, self.model, origins) from error

    def take(self, document: ClusterSettings, *, sure: bool = False) -> bool:
        """Use a newer document, or with `sure` another one; returns whether this process does. One that is
        not valid here is counted and logged, and the settings stay as they are."""
        if document.revision == self.revision or (document.revision < self.revision and not sure):
            return True
        try:
            self._use(document, self.merged(document))
        except InvalidRequest as error:
            self.refuse(f"revision {document.revision} of the cluster's settings is not used here", error)
            return False
        return True

    def begin(self, document: ClusterSettings) -> None:
        """Use a document at the start of the process: the newest state of it that is valid here."""
        newest: ClusterSettings | None = document
        refused = ""
        while newest is not None and not self.take(newest):
            refused = refused or self.refused
            newest = newest.before_last()
        if refused:
            self.refused = refused
            log.error("this process starts with revision %d of the cluster's settings", self.revision)

    def _use(self, document: ClusterSettings, settings: S) -> None:
        before, self.settings, self.document, self.refused = self.settings, settings, document, ""
        REVISION.set(document.revision)
        for reason in self._usable(document)[1]:
            REFUSED.inc()
            log.warning("a setting of the cluster is ignored here: %s", reason)
        for applier in self._appliers:
            self._call(applier, before)

    def _call(self, applier: _Applier[S], before: S) -> None:
        if value_at(before, applier.path) == value_at(self.settings, applier.path):
            return
        try:
            applier.apply(self.settings)
        except Exception as error:  # one component's fault must not keep the others from following
            log.error("a change of %s failed here", ".".join(applier.path), exc_info=error)

    def refuse(self, what: str, error: InvalidRequest) -> None:
        """Count and log a document that this process cannot use."""
        self.refused = error.message
        REFUSED.inc()
        log.error("%s: %s", what, error)

    def _usable(self, document: ClusterSettings) -> tuple[list[tuple[Path, Any, bool]], list[str]]:
        """Paths and values that this version can use, whole entries before what is in them; and why it cannot
        use the others."""
        usable: list[tuple[Path, Any, bool]] = []
        ignored: list[str] = []
        for name, held in document.values.items():
            try:
                setting = require_hot(self.model, name)
            except InvalidRequest as error:
                ignored.append(error.message)
            else:
                usable.append((setting.path, held.value, setting.is_entry and held.value is None))
        return sorted(usable, key=lambda each: len(each[0])), ignored


def origin_of(document: ClusterSettings, name: str) -> str:
    """The source of a value that the cluster sets, for people."""
    held = document.values[name]
    return f"cluster (revision {held.revision}, by {held.by})"


def _pins(origin: str) -> bool:
    return origin == COMMAND_LINE or origin.startswith("$")


def _put(tree: dict[str, Any], path: Path, value: Any, *, removes: bool) -> None:
    *outer, last = path
    for part in outer:
        inner = tree.get(part)
        tree[part] = tree = inner if isinstance(inner, dict) else {}
    if removes:
        tree.pop(last, None)
    else:
        tree[last] = value
