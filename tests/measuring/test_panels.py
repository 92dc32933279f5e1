"""What `make eval ARGS=replay` says of its data and of its bars."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.bench.panels import PANELS, Panel, bars, chosen_panels, jobs, parsed, reading

PANEL = Panel(name="mixed", set="gsm", models=("a", "b"), near=True, saves=True)


def share(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean, "high": mean}


def report(ensemble: float, majority: float, single: float, **more: Any) -> dict[str, Any]:
    part = {
        "questions": 100,
        "pattern": share(ensemble),
        "majority": share(majority),
        "weighted": None,
        "members": {"a": share(single), "b": share(0.1)},
        "best": "a",
        "against_best": {"interval": share(ensemble - single)},
        "against_majority": {"interval": share(ensemble - majority)},
        "early_stops": {"stopped": 50, "right": 44, "full_right": 45},
        "tokens": {"written": 700, "full": 1000, "unwritten_share": 0.3, "saved_error": -0.05},
        "readings": {
            "equal_called_different": 0.02,
            "different_called_equal": 0.0,
            "not_counted_share": None,
        },
    } | more
    parts = [part | {"name": name} for name in ("all", "first", "second")]
    return {"patterns": [{"parts": parts, "chosen": {}}]}


def test_each_bar_says_whether_it_is_met() -> None:
    silent, fed = report(0.90, 0.90, 0.92), report(0.91, 0.92, 0.90)
    auto = report(0.90, 0.9, 0.90, tokens={"written": 300, "full": 1000})
    found = {bar.what.split(" (")[0]: bar.is_met for bar in bars(PANEL, silent, fed, auto)}
    assert found == {
        "no ratings: less the majority": True,
        "no ratings: less the best single": True,
        "ratings: less the majority": False,
        "ratings: less the best single": True,
        "ratings: above the best single": True,
        "auto: less the better of best single and ensemble": True,
        "auto: of the ensemble's tokens, where equal": True,
        "no ratings: stopped votes less the full vote": False,
        "no ratings: not written": True,
        "no ratings: reported saving against the actual one": True,
        "no ratings: equal answers called different": False,
        "no ratings: different answers called equal": True,
        "no ratings: readable voters not counted": None,
        "ratings: stopped votes less the full vote": False,
        "ratings: not written": True,
        "ratings: reported saving against the actual one": True,
        "ratings: equal answers called different": False,
        "ratings: different answers called equal": True,
        "ratings: readable voters not counted": None,
    }


def test_a_set_is_read_beside_its_scorer(tmp_path: Path) -> None:
    (tmp_path / "gsm.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "What is 2 + 2? Say the number."}], "gold": "4", '
        '"answers": {"a": ["It is 4.", "It is 5."], "b": "No."}}'
    )
    assert [bar.is_met for bar in reading("gsm", tmp_path)] == [None]
    (tmp_path / "scoring.py").write_text("def read(name, text):\n    return '4' if '.' in text else None\n")
    assert [bar.figure for bar in reading("gsm", tmp_path)] == ["66.67%", "33.33%"]


def test_missing_records_are_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "gsm.jsonl.gz").touch()
    with pytest.raises(
        SystemExit, match=r"gsmplain\.jsonl\.gz, mathl5\.jsonl\.gz, mmlupro\.jsonl\.gz\n.*REPLAY=DIR"
    ):
        chosen_panels(parsed(["--records", str(tmp_path)]))
    assert [each.name for each in chosen_panels(parsed(["mixed", "--records", str(tmp_path)]))] == ["mixed"]
    with pytest.raises(SystemExit, match="no panel 'mixt'; the panels are math, mixed"):
        chosen_panels(parsed(["mixt", "--records", str(tmp_path)]))


def test_the_panels_are_in_alphabetical_order_and_a_quick_one_asks_less() -> None:
    for each in tomllib.loads(PANELS.read_text())["panel"]:
        panel = Panel.model_validate(each)
        assert list(panel.models) == sorted(panel.models)
        assert [(job.name, job.feedback) for job in jobs(panel, quick=False)] == [
            ("silent", 0),
            ("fed", panel.feedback),
            ("auto", panel.feedback),
        ]
        assert all(job.limit and job.feedback < job.limit for job in jobs(panel, quick=True))
