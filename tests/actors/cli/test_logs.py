"""`orchestra logs` with options that a script filled in."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from actors.cli.main import root


@pytest.mark.parametrize("option", ["--run", "--trace", "--caller", "--model", "--node"])
def test_an_empty_filter_is_refused_instead_of_showing_everything(option: str) -> None:
    result = CliRunner().invoke(root, ["logs", option, ""])
    assert result.exit_code == 2
    assert "it is empty; leave the option out to mean all" in result.stderr
