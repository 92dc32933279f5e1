"""Settings as rows for people and scripts: the value, and which layer it comes from."""

from __future__ import annotations

from typing import Any

from actors.config.cluster_settings import ClusterSettings, SettingsChange, Stored, ValueChange
from actors.config.hot_settings import HotSettings, origin_of
from actors.config.masking import shown, shown_values
from actors.config.setting_names import Path, dotted, find_setting
from orchestration.errors import InvalidRequest
from orchestration.wire import Wire

DEFAULT = "default"


class SettingRow(Wire):
    """One setting with its layers. Secrets are masked."""

    name: str
    value: Any = None
    """The value in force."""
    origin: str = DEFAULT
    """Where it comes from: `default`, a file, `cluster (…)`, a variable, or `command line`."""
    hot: bool = False
    """Whether it can be changed while processes run."""
    default: Any = None
    process: Any = None
    """The value without the cluster's."""
    process_origin: str = DEFAULT
    cluster: Any = None
    """The cluster's value, also where the process pins another one."""
    revision: int = 0
    """The change that set the cluster's value; 0: the cluster does not set it."""
    by: str = ""
    """Who set the cluster's value."""


def rows_of(hot: HotSettings[Any], document: ClusterSettings, prefix: str = "") -> list[SettingRow]:
    """A row for each setting at or below `prefix`, by name. Raises `InvalidRequest` for an unknown one."""
    if prefix:
        prefix = str(find_setting(hot.model, prefix))
    now, process = shown_values(hot.merged(document)), shown_values(hot.base)
    defaults = shown_values(hot.model())
    cluster = {_path(hot, name): name for name in document.values}
    rows: list[SettingRow] = []
    for path in sorted(now.keys() | cluster.keys()):
        name = dotted(path)
        if prefix and name != prefix and not name.startswith(f"{prefix}."):
            continue
        rows.append(
            _row(hot, document, path, now.get(path), process.get(path), defaults.get(path), cluster.get(path))
        )
    return [row for row in rows if row.value != {}]


def masked_change(change: SettingsChange) -> SettingsChange:
    """The change as it may be shown."""
    return change.model_copy(
        update={
            "values": tuple(
                ValueChange(
                    name=each.name,
                    before=_masked(each.name, each.before),
                    after=_masked(each.name, each.after),
                )
                for each in change.values
            )
        }
    )


def _masked(name: str, stored: Stored | None) -> Stored | None:
    return None if stored is None else Stored(value=shown((name.rpartition(".")[2],), stored.value))


def _path(hot: HotSettings[Any], name: str) -> Path:
    try:
        return find_setting(hot.model, name).path
    except InvalidRequest:  # of another version
        return (name,)


def _row(
    hot: HotSettings[Any],
    document: ClusterSettings,
    path: Path,
    now: Any,
    process: Any,
    default: Any,
    cluster: str | None,
) -> SettingRow:
    name = dotted(path)
    process_origin = hot.origin(path) or DEFAULT
    held = document.values[cluster] if cluster is not None else None
    pinned = hot.pinned(path)
    return SettingRow(
        name=name,
        value=now,
        origin=process_origin if held is None or cluster is None or pinned else origin_of(document, cluster),
        hot=_is_hot(hot, name),
        default=default,
        process=process,
        process_origin=process_origin,
        cluster=None if held is None else shown(path, held.value),
        revision=0 if held is None else held.revision,
        by="" if held is None else held.by,
    )


def _is_hot(hot: HotSettings[Any], name: str) -> bool:
    try:
        return find_setting(hot.model, name).hot
    except InvalidRequest:
        return False
