import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from actors.cli.reference.command import PAGES, pages, reference

FOLDER = Path(__file__).parents[3] / "docs" / "reference"


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def test_the_reference_in_docs_is_that_of_the_code(made: dict[str, str]) -> None:
    stale = [name for name, text in made.items() if (FOLDER / name).read_text() != text]
    assert not stale, f"run `make docs` and commit docs/reference: {', '.join(stale)}"


def test_a_setting_is_shown_with_its_default_and_its_range(made: dict[str, str]) -> None:
    row = next(line for line in made["settings.md"].splitlines() if "`gateway.max_in_flight`" in line)
    assert row.startswith("| `gateway.max_in_flight` | `1024` | ≥ 1, hot |")


def test_metrics_errors_and_headers_are_found_where_they_are_defined(made: dict[str, str]) -> None:
    assert "`orchestra_placement_placed_total` | counter | `model`, `node` |" in made["metrics.md"]
    assert "| 429 | `rate_limit_exceeded` | yes |" in made["errors.md"]
    assert "`Orchestra-Deadline`" in made["nats.md"]
    assert "## step_ended" in made["run-events.md"]
    assert "| `lead_probability` | number |" in made["run-events.md"]


def test_every_row_says_what_it_is(made: dict[str, str]) -> None:
    rows = [line for name, text in made.items() if name.endswith(".md") for line in text.splitlines()]
    rows = [line for line in rows if line.startswith("| ")]
    assert len(rows) >= 400
    assert [line for line in rows if not line.removesuffix("|").rpartition("|")[2].strip()] == []


def test_the_command_prints_one_page_or_writes_all(tmp_path: Path) -> None:
    printed = CliRunner().invoke(reference, ["errors.md"])
    assert printed.output.startswith("# Errors")
    CliRunner().invoke(reference, ["--write", str(tmp_path / "made")], catch_exceptions=False)
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(PAGES)


def test_the_openapi_description_has_every_route_and_no_broken_reference(made: dict[str, str]) -> None:
    described = json.loads(made["openapi.json"])
    assert {"/v1/chat/completions", "/v1/jobs/{id}", "/v1/models/{model}"} <= set(described["paths"])
    schemas = described["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', made["openapi.json"]))
    assert references <= set(schemas)
    assert {"get", "delete"} == set(described["paths"]["/v1/jobs/{id}"])
