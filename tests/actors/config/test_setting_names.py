"""Names of settings: found in the models, hot or not, with a way out where they cannot be changed."""

from __future__ import annotations

import pytest

from actors.config.setting_names import find_setting, hot_names, leaves_of, require_hot
from actors.settings import Settings
from orchestration.errors import InvalidRequest


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("gateway.max_in_flight", ("gateway", "max_in_flight")),
        ("gateway.callers.bob.key", ("gateway", "callers", "bob", "key")),
        ("gateway.callers.bob@x.org.key", ("gateway", "callers", "bob@x.org", "key")),
        ('gateway.callers."a.key".key', ("gateway", "callers", "a.key", "key")),
        ("gateway.callers.bob", ("gateway", "callers", "bob")),
        ("dispatcher.fallbacks.qwen2.5-7b", ("dispatcher", "fallbacks", "qwen2.5-7b")),
        ("dispatcher.breaker.window_s", ("dispatcher", "breaker", "window_s")),
        ("agents.patterns.debate.rounds", ("agents", "patterns", "debate", "rounds")),
    ],
)
def test_a_name_leads_to_its_setting(name: str, path: tuple[str, ...]) -> None:
    assert find_setting(Settings, name).path == path


def test_the_text_of_a_name_leads_back_to_it() -> None:
    name = str(find_setting(Settings, 'gateway.callers."a.key".key'))
    assert find_setting(Settings, name).path == ("gateway", "callers", "a.key", "key")


def test_a_section_that_is_hot_makes_all_in_it_hot() -> None:
    assert require_hot(Settings, "gateway.limits.per_caller.queue_depth").hot
    assert "gateway.callers.NAME.key" in hot_names(Settings)
    assert "gateway.http" not in hot_names(Settings)


def test_a_setting_that_is_not_hot_is_refused_with_the_way_out_and_hot_ones_near_it() -> None:
    with pytest.raises(InvalidRequest, match="restart") as refused:
        require_hot(Settings, "gateway.max_body_bytes")
    assert "$ORCHESTRA_GATEWAY__MAX_BODY_BYTES" in refused.value.message
    assert "gateway.max_bodies_bytes" in refused.value.message


@pytest.mark.parametrize(
    "name", ["gateway.max_in_flihgt", "gatway.limits", "gateway.http.port", "", "a..b", ".", '"']
)
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        find_setting(Settings, name)


def test_an_unknown_name_is_refused_with_names_near_it() -> None:
    with pytest.raises(InvalidRequest, match=r"did you mean gateway\.max_in_flight"):
        find_setting(Settings, "gateway.max_in_flihgt")


def test_a_section_is_its_single_settings() -> None:
    value = {"alice": {"key": "key-of-alice", "queue_depth": 3}, "b.c": {"key": "key-of-bc"}}
    found = leaves_of(find_setting(Settings, "gateway.callers"), value, Settings)
    assert {str(setting): leaf for setting, leaf in found} == {
        "gateway.callers.alice.key": "key-of-alice",
        "gateway.callers.alice.queue_depth": 3,
        'gateway.callers."b.c".key': "key-of-bc",
    }
