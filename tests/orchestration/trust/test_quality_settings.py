"""`[agents.auto.quality]`: what a user says of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.settings import load
from orchestration.errors import InvalidRequest
from orchestration.trust.priors import default_accuracy


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "orchestra.toml"


def test_the_quality_of_models_is_read_by_name_and_by_kind(file: Path) -> None:
    file.write_text('[agents.auto.quality]\n"gpt-4.1*" = 0.9\nfoo = {code = 0.8, reasoning = 0.3}\n')
    quality = load()[0].agents.auto.quality
    assert quality == {"gpt-4.1*": 0.9, "foo": {"code": 0.8, "reasoning": 0.3}}
    assert default_accuracy("gpt-4.1-nano", "code", quality) == 0.9
    assert default_accuracy("foo", "reasoning", quality) == 0.3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("foo = 1.0", "the quality of 'foo' is 1.0; it must be above 0 and below 1"),
        ("foo = 0", "the quality of 'foo' is 0; it must be above 0 and below 1"),
        ("foo = true", "the quality of 'foo' is True"),
        ("foo = nan", "the quality of 'foo' is nan"),
        ('foo = "good"', "the quality of 'foo' is 'good'"),
        ("foo = [0.5]", "the quality of 'foo' is [0.5]"),
        ("foo = {code = 80}", "the quality of 'foo' at code is 80"),
        ("foo = {coding = 0.8}", "unknown kind of question 'coding' for 'foo'; allowed: factual, reasoning"),
        ("gpt-4.1 = 0.9", "Put the name of a model with a dot in quotes"),
        ('"" = 0.9', "the name of a model is empty"),
    ],
)
def test_a_quality_that_means_nothing_is_refused_with_the_way_out(
    file: Path, text: str, complaint: str
) -> None:
    file.write_text(f"[agents.auto.quality]\n{text}\n")
    with pytest.raises(InvalidRequest) as refusal:
        load()
    assert complaint in refusal.value.message
    assert "agents.auto.quality" in refusal.value.message
    assert "orchestra.toml" in refusal.value.message
