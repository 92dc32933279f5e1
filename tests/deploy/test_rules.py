"""The alerts and dashboards in `deploy`: valid, tested, explained, and on metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from actors.cli.main import root
from actors.cli.reference import metrics as reference

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
RULE_TESTS = Path(__file__).parent / "rules_test.yml"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
METRIC = re.compile(r"\b(?:orchestra|gen_ai|process)_[a-z0-9_]+\b")
RECORDED = re.compile(r"\borchestra:[a-z0-9_:]+\b")
OF_CLIENT_LIBRARY = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}


def rules() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def known_metrics() -> set[str]:
    """The names of all samples that the code exports, from the reference."""
    found: set[str] = set(OF_CLIENT_LIBRARY)
    for name, kind in re.findall(r"^\| `(\w+)` \| (\w+) \|", reference.page(), flags=re.MULTILINE):
        found |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Where a query stands, and the query."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.name}: {panel['title']}", target["expr"]


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_and_the_configuration_are_valid(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "check", "rules", str(RULES))
    config = DEPLOY / "prometheus" / "prometheus.yml"
    assert "SUCCESS" in run(promtool, "check", "config", "--syntax-only", str(config))


def test_each_alert_fires_when_it_should_and_only_then(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "test", "rules", str(RULE_TESTS))


def test_each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires: dict[str, set[bool]] = {}
    for each in yaml.safe_load(RULE_TESTS.read_text())["tests"]:
        for tested in each["alert_rule_test"]:
            fires.setdefault(tested["alertname"], set()).add(bool(tested["exp_alerts"]))
    assert fires == {alert["alert"]: {True, False} for alert in alerts()}


def test_each_alert_has_a_section_in_the_runbook_and_each_section_an_alert() -> None:
    sections = set(re.findall(r"^## (Orchestra\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE))
    assert sections == {alert["alert"] for alert in alerts()}
    for alert in alerts():
        assert alert["annotations"]["runbook"] == f"docs/runbook.md#{alert['alert'].lower()}"
        assert alert["annotations"]["summary"]
        assert alert["labels"]["severity"] in ("warning", "critical")


def test_every_query_uses_metrics_and_recorded_series_that_exist() -> None:
    known, recorded = known_metrics(), {rule["record"] for rule in rules() if "record" in rule}
    unknown = {
        (where, name)
        for where, query in expressions()
        for name in set(METRIC.findall(query)) - known | set(RECORDED.findall(query)) - recorded
    }
    assert unknown == set()


def test_alerts_stand_on_names_of_our_own() -> None:
    assert not [rule for rule in rules() if "gen_ai_" in rule["expr"]]


def test_queries_of_the_runbook_exist_as_well() -> None:
    text = (ROOT / "docs/runbook.md").read_text()
    known, recorded = known_metrics(), {rule["record"] for rule in rules() if "record" in rule}
    assert set(METRIC.findall(text)) - known == set()
    assert set(RECORDED.findall(text)) - recorded == set()


def test_the_commands_in_the_runbook_exist() -> None:
    text = (ROOT / "docs/runbook.md").read_text()
    for line in re.findall(r"\borchestra ([a-z]+(?: [a-z]+)?)(?=[ `\n])", text):
        name, _, further = line.partition(" ")
        command = root.get_command(click.Context(root), name)
        assert command is not None, line
        if isinstance(command, click.Group) and further:
            assert command.get_command(click.Context(command), further) is not None, line


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_one_that_grafana_imports(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["uid"].startswith("orchestra-")
    assert board["title"].startswith("Orchestra")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    for panel in board["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"]
        assert panel["gridPos"].keys() == {"x", "y", "w", "h"}
