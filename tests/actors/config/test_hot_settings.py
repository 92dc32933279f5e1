"""The settings of the cluster over those of a process: precedence, validation, and what is not known here."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from actors.config.cluster_settings import ClusterSettings, Stored, ValueChange
from actors.config.hot_settings import HotSettings
from actors.config.metrics import REFUSED, REVISION
from actors.config.settings_rows import rows_of
from actors.settings import Settings, load
from orchestration.errors import InvalidRequest

REMOVED: Any = None


def document(*changes: dict[str, Any], by: str = "alice") -> ClusterSettings:
    """A document after some changes."""
    made = ClusterSettings()
    for change in changes:
        values = [
            ValueChange(name=name, before=made.get(name), after=Stored(value=v)) for name, v in change.items()
        ]
        made = made.changed(values, by=by, reason="")
    return made


def loaded(tmp_path: Path, file: str = "", **command_line: Any) -> HotSettings[Settings]:
    path = tmp_path / "orchestra.toml"
    path.write_text(file)
    settings, origins = load(command_line, path, find_running=False)
    return HotSettings(settings, origins)


def test_the_cluster_beats_the_file_and_the_environment_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRA_GATEWAY__LIMITS__QUEUE_DEPTH", "7")
    hot = loaded(tmp_path, "[gateway]\nmax_in_flight = 5\n[gateway.limits]\nqueue_depth = 1\n")
    assert hot.take(document({"gateway.max_in_flight": 9, "gateway.limits.queue_depth": 2}))
    assert hot.settings.gateway.max_in_flight == 9
    assert hot.settings.gateway.limits.queue_depth == 7
    rows = {row.name: row for row in rows_of(hot, hot.document, "gateway")}
    assert rows["gateway.max_in_flight"].origin == "cluster (revision 1, by alice)"
    assert rows["gateway.max_in_flight"].process == 5
    assert rows["gateway.max_in_flight"].default == 1024
    pinned = rows["gateway.limits.queue_depth"]
    assert (pinned.value, pinned.cluster) == (7, 2)
    assert pinned.origin == "$ORCHESTRA_GATEWAY__LIMITS__QUEUE_DEPTH"


def test_the_command_line_pins_too(tmp_path: Path) -> None:
    hot = loaded(tmp_path, gateway={"max_in_flight": 3})
    hot.take(document({"gateway.max_in_flight": 9}))
    assert hot.settings.gateway.max_in_flight == 3


def test_an_entry_of_a_table_is_added_changed_and_removed(tmp_path: Path) -> None:
    hot = loaded(tmp_path, "[gateway.callers.alice]\nkey = 'key-of-alice'\nqueue_depth = 4\n")
    hot.take(document({"gateway.callers.bob.key": "key-of-bob", "gateway.callers.alice.queue_depth": 2}))
    callers = hot.settings.gateway.callers
    assert callers["bob"].key == SecretStr("key-of-bob")
    assert (callers["alice"].key, callers["alice"].queue_depth) == (SecretStr("key-of-alice"), 2)
    hot.take(document({}, {}, {"gateway.callers.alice": REMOVED}))
    assert not hot.settings.gateway.callers


def test_only_those_whose_section_changed_are_called(tmp_path: Path) -> None:
    hot = loaded(tmp_path)
    seen: list[str] = []
    started = hot.settings
    hot.on_change("gateway.limits", lambda now: seen.append("limits"), since=started)
    hot.on_change("gateway", lambda now: seen.append("gateway"), since=started)
    hot.on_change("dispatcher", lambda now: seen.append("dispatcher"), since=started)
    hot.take(document({"gateway.max_in_flight": 9}))
    assert seen == ["gateway"]
    hot.on_change("gateway", lambda now: seen.append("late"), since=started)
    assert seen == ["gateway", "late"], "what changed since the component was started is applied at once"


def test_the_fault_of_one_component_does_not_keep_others_from_following(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hot = loaded(tmp_path)
    seen: list[int] = []

    def fail(now: Settings) -> None:
        raise RuntimeError("defect")

    hot.on_change("gateway", fail, since=hot.settings)
    hot.on_change("gateway", lambda now: seen.append(now.gateway.max_in_flight), since=hot.settings)
    hot.take(document({"gateway.max_in_flight": 9}))
    assert seen == [9]
    assert "a change of gateway failed here" in caplog.text


def test_a_document_that_is_invalid_here_is_counted_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hot = loaded(tmp_path)
    hot.take(document({"gateway.max_in_flight": 9}))
    refused = REFUSED._value.get()
    assert not hot.take(document({"gateway.max_in_flight": 9}, {"gateway.max_in_flight": -1}))
    assert hot.settings.gateway.max_in_flight == 9
    assert REFUSED._value.get() == refused + 1
    assert "gateway.max_in_flight" in hot.refused
    assert (hot.revision, REVISION._value.get()) == (1, 1)
    assert hot.take(document({}, {}, {"gateway.max_in_flight": 4}))
    assert not hot.refused


def test_a_setting_of_another_version_is_ignored_and_the_others_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hot = loaded(tmp_path)
    refused = REFUSED._value.get()
    assert hot.take(
        document({"gateway.of_tomorrow": 1, "gateway.http": "0.0.0.0:1", "gateway.max_in_flight": 9})
    )
    assert hot.settings.gateway.max_in_flight == 9
    assert hot.settings.gateway.http == "127.0.0.1:8080"
    assert REFUSED._value.get() == refused + 2


def test_a_process_that_starts_with_an_invalid_document_takes_the_newest_valid_state(tmp_path: Path) -> None:
    hot = loaded(tmp_path)
    hot.begin(
        document(
            {"gateway.max_in_flight": 9}, {"gateway.limits.queue_depth": 3}, {"gateway.max_in_flight": -1}
        )
    )
    assert hot.settings.gateway.max_in_flight == 9
    assert hot.settings.gateway.limits.queue_depth == 3
    assert hot.revision == 2
    assert "gateway.max_in_flight" in hot.refused


def test_an_older_document_changes_nothing_and_a_deleted_one_everything(tmp_path: Path) -> None:
    hot = loaded(tmp_path)
    hot.take(document({"gateway.max_in_flight": 9}, {"gateway.max_in_flight": 10}))
    hot.take(document({"gateway.max_in_flight": 9}))
    assert hot.settings.gateway.max_in_flight == 10
    hot.take(ClusterSettings(), sure=True)
    assert hot.settings.gateway.max_in_flight == 1024


def test_settings_survive_being_taken_apart(tmp_path: Path) -> None:
    file = """
[gateway.callers.alice]
key = "key-of-alice"
[agents.mcp.docs]
command = "a"
roles = ["research"]
[dispatcher.fallbacks]
big = ["small"]
[agents.patterns.debate]
rounds = 1
"""
    hot = loaded(tmp_path, file)
    hot.take(document({"gateway.max_in_flight": 1024}))
    assert hot.settings == hot.base


def test_secrets_are_masked_in_rows(tmp_path: Path) -> None:
    hot = loaded(tmp_path, "[gateway.callers.alice]\nkey = 'key-of-alice'\n")
    made = document({"gateway.callers.bob.key": "sha256:" + "ab" * 32})
    rows = {row.name: row.value for row in rows_of(hot, made, "gateway.callers")}
    assert rows["gateway.callers.alice.key"] == "********"
    assert rows["gateway.callers.bob.key"] == "sha256:abababab…"


def test_a_key_that_two_callers_share_is_refused_also_if_one_is_hashed(tmp_path: Path) -> None:
    from actors.config.key_hash import hash_of

    hot = loaded(tmp_path, "[gateway.callers.alice]\nkey = 'key-of-alice'\n")
    with pytest.raises(InvalidRequest, match="same key"):
        hot.merged(document({"gateway.callers.bob.key": hash_of("key-of-alice")}))


def test_the_history_is_bounded_in_number_and_bytes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    made = document(*({"gateway.max_in_flight": number} for number in range(1, 131)))
    assert (len(made.changes), made.revision) == (100, 130)
    made = document(*({"agents.roles.judge.prompt": f"{number}" * 60_000} for number in range(1, 6)))
    assert len(made.model_dump_json()) < 450_000
    assert made.changes[-1].id == 5
