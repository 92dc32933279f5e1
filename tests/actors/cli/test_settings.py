"""Settings from a file, the environment and the command line, and where each came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from actors.cli.main import overrides_of, root
from actors.config.layers import CONFIG_VARIABLE
from actors.settings import leaves, load
from orchestration.errors import InvalidRequest


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)


def test_the_command_line_beats_the_environment_and_that_beats_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "orchestra.toml"
    file.write_text('[gateway]\nhttp = "127.0.0.1:1"\nmax_in_flight = 7\nkeep_alive_s = 3\n')
    monkeypatch.setenv("ORCHESTRA_GATEWAY__HTTP", "127.0.0.1:2")
    monkeypatch.setenv("ORCHESTRA_GATEWAY__MAX_IN_FLIGHT", "8")
    settings, origins = load(overrides_of(gateway__http="127.0.0.1:3"))
    assert settings.gateway.http == "127.0.0.1:3"
    assert settings.gateway.max_in_flight == 8
    assert settings.gateway.keep_alive_s == 3
    assert origins["gateway.http"] == "command line"
    assert origins["gateway.max_in_flight"] == "$ORCHESTRA_GATEWAY__MAX_IN_FLIGHT"
    assert origins["gateway.keep_alive_s"] == "orchestra.toml"
    assert "gateway.max_body_bytes" not in origins


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[gateway]\nhtpp = 1\n", "gateway.htpp"),
        ("[gateway]\nmax_in_flight = 0\n", "gateway.max_in_flight"),
        ("[gateway\n", "cannot read"),
        ("[nowhere]\nx = 1\n", "nowhere"),
        ('[roles.critic]\nprompt = "x"\n', "roles"),
    ],
)
def test_a_wrong_file_is_refused_naming_the_setting_and_the_file(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "orchestra.toml").write_text(text)
    with pytest.raises(InvalidRequest) as refusal:
        load()
    assert complaint in refusal.value.message
    assert "orchestra.toml" in refusal.value.message


@pytest.mark.parametrize(
    ("text", "hint", "known"),
    [
        ("[gatway]\nhttp = 1\n", "did you mean 'gateway'?", "dispatcher"),
        ("[gateway]\nhtpp = 1\n", "did you mean 'http'?", "max_in_flight"),
        ("[agents.auto]\nlern = false\n", "did you mean 'learn'?", "cost_weight"),
        ('[agents.mcp.files]\ncomand = "x"\n', "did you mean 'command'?", "roles"),
        ("modles = ['x']\n", "did you mean 'models'?", "gateway"),
        ("gateway = 3\n", "a section, not a value", "max_in_flight"),
        ("[agents.patterns.debate]\nround = 1\n", "debate.round: unknown name", "rounds"),
        ("[agents.patterns.debate]\nrounds = 99\n", "debate.rounds: Input should be", "agree_at"),
    ],
)
def test_a_misspelt_name_is_told_with_the_known_ones(
    tmp_path: Path, text: str, hint: str, known: str
) -> None:
    (tmp_path / "orchestra.toml").write_text(text)
    with pytest.raises(InvalidRequest) as refusal:
        load()
    assert hint in refusal.value.message
    assert known in refusal.value.message
    assert "orchestra.toml" in refusal.value.message


def test_the_environment_takes_lists_and_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_MODELS", '["one", "two"]')
    monkeypatch.setenv("ORCHESTRA_GATEWAY__HTTP", "[::1]:8080")
    monkeypatch.setenv("ORCHESTRA_ONNX__THREADS", "3")
    settings, _ = load()
    assert settings.models == ("one", "two")
    assert settings.gateway.http == "[::1]:8080"
    assert settings.onnx == {"threads": "3"}


def test_a_variable_that_sets_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_GATWAY__HTTP", "127.0.0.1:1")
    with pytest.raises(InvalidRequest, match="ORCHESTRA_GATWAY__HTTP"):
        load()


def test_a_settings_file_that_is_named_must_be_there() -> None:
    with pytest.raises(InvalidRequest, match=r"the settings file nowhere\.toml does not exist"):
        load(file=Path("nowhere.toml"))


def test_secrets_are_masked() -> None:
    settings, _ = load(
        overrides_of(nats__url="nats://user:hunter2@127.0.0.1:4222", openai={"api_key": "sk-1"})
    )
    shown = leaves(settings)
    assert shown["nats.url"] == "nats://********@127.0.0.1:4222"
    assert shown["openai.api_key"] == "********"
    assert "hunter2" not in json.dumps(shown, default=str)
    assert "sk-1" not in json.dumps(shown, default=str)


def test_config_prints_every_value_and_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_DISPATCHER__ATTEMPTS", "2")
    result = CliRunner().invoke(root, ["config", "--json"])
    shown = json.loads(result.stdout)
    assert shown["dispatcher.attempts"] == {
        "value": 2,
        "source": "$ORCHESTRA_DISPATCHER__ATTEMPTS",
        "hot": True,
    }
    assert shown["gateway.http"] == {"value": "127.0.0.1:8080", "source": "default", "hot": False}
    table = CliRunner().invoke(root, ["config"]).stdout
    assert "$ORCHESTRA_DISPATCHER__ATTEMPTS" in table
