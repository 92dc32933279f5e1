"""`make eval ARGS=replay`: panels of real models on their recorded answers, against bars.

Each panel is asked by the ensemble without feedback, and with user ratings of the first questions; and by
`auto` with the same ratings. The records are no part of this project: `make eval ARGS=replay REPLAY=DIR` says
where they are, and docs/evaluation.md what a record is. `--quick` asks fewer questions, which shows that it
works and little else. What is stopped goes on where it was; `--fresh` forgets it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from actors.replay.outcome import compare_readings
from actors.replay.reader import FileScorer
from actors.replay.spec import SUFFIXES, RecordedSet, set_files

PANELS = Path(__file__).with_suffix(".toml")
SCORER = "scoring.py"
"""Beside the records, it judges in the place of Orchestra's own reading."""
READING_ONLY = "exams"
"""A set of one model: no panel, but answers to read."""
TABLE = "table.json"
"""There once all is asked: the next time begins again."""
STOPPED = 130
STOPPED_WITHIN_S = 60
WIDTH = 160
"""Of the tables, where they go into a file."""
QUICK_QUESTIONS, QUICK_FEEDBACK = 80, 40
EQUAL_POINTS = 1.0
"""Accuracies within it are taken as equal."""


class Panel(BaseModel):
    """One panel. `near`: it has to answer better than its best member; `saves`: it has to leave a fifth
    unwritten; `settings` are of the ensemble."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    set: str
    models: tuple[str, ...]
    near: bool = False
    saves: bool = False
    feedback: int = 200
    settings: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One figure against its bar; `is_met` is None where it cannot be told."""

    panel: str
    what: str
    figure: str
    is_met: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One evaluation of one panel."""

    panel: Panel
    name: str
    pattern: str
    feedback: int
    limit: int | None

    def words(self, args: argparse.Namespace) -> list[str]:
        """Of `orchestra`."""
        said = ["eval", "--replay", str(args.records), self.panel.set, "--patterns", self.pattern, "--resume"]
        said += ["--models", ",".join(self.panel.models), "--out", str(self.folder(args.out)), "--json"]
        said += ["--concurrency", str(args.concurrency), "--speed", str(args.speed)]
        said += ["--feedback", str(self.feedback), "--seed", str(args.seed)]
        if (args.records / SCORER).is_file():
            said += ["--scorer", str(args.records / SCORER)]
        if self.limit is not None:
            said += ["--limit", str(self.limit)]
        if self.pattern == "ensemble":
            for field, value in self.panel.settings.items():
                said += ["--set", f"ensemble.{field}={json.dumps(value)}"]
        return said + [word for pair in args.set for word in ("--set", pair) if pair.startswith(self.pattern)]

    def folder(self, out: Path) -> Path:
        return out / f"{self.panel.name}-{self.name}"


def jobs(panel: Panel, quick: bool) -> list[Job]:
    """Without ratings, with ratings, and `auto` with the same ratings."""
    limit = QUICK_QUESTIONS if quick else None
    words = QUICK_FEEDBACK if quick else panel.feedback
    return [
        Job(panel=panel, name=name, pattern=pattern, feedback=feedback, limit=limit)
        for name, pattern, feedback in (
            ("silent", "ensemble", 0),
            ("fed", "ensemble", words),
            ("auto", "auto", words),
        )
    ]


def asked(job: Job, args: argparse.Namespace) -> dict[str, Any]:
    """The report of `orchestra eval`. Ends the process with what went wrong."""
    command = [str(Path(sys.executable).with_name("orchestra")), *job.words(args)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            said, _ = running.communicate()
        except KeyboardInterrupt:  # it was stopped as well, and puts its cluster away
            running.wait(STOPPED_WITHIN_S)
            raise
    if running.returncode:
        raise SystemExit(running.returncode)
    report: dict[str, Any] = json.loads(said)
    return report


def bars(panel: Panel, silent: dict[str, Any], fed: dict[str, Any], auto: dict[str, Any]) -> Iterator[Bar]:
    """Every figure of a panel that has a bar."""
    whole, last = _part(silent, "all"), _part(fed, "second")
    yield _at_least(panel, "no ratings: less the majority", _points(whole, "against_majority"), 0)
    yield _at_least(panel, "no ratings: less the best single", _points(whole, "against_best"), -3)
    yield _at_least(panel, "ratings: less the majority", _points(last, "against_majority"), -0.5)
    best = _points(last, "against_best")
    yield _at_least(panel, "ratings: less the best single", best, -1)
    if panel.near:
        yield Bar(
            panel=panel.name, what="ratings: above the best single", figure=f"{best:+.1f}", is_met=best > 0
        )
    yield from _auto(panel, last, _part(auto, "second"))
    for name, part in (("no ratings", whole), ("ratings", last)):
        yield from _votes(panel, name, part)


def _auto(panel: Panel, ensemble: dict[str, Any], auto: dict[str, Any]) -> Iterator[Bar]:
    single = max(each["mean"] for each in auto["members"].values())
    better = max(single, ensemble["pattern"]["mean"])
    short = 100 * (auto["pattern"]["mean"] - better)
    yield _at_least(panel, "auto: less the better of best single and ensemble", short, -EQUAL_POINTS)
    if abs(100 * (single - ensemble["pattern"]["mean"])) <= EQUAL_POINTS + 1e-9:
        share = auto["tokens"]["written"] / max(1, ensemble["tokens"]["written"])
        what = "auto: of the ensemble's tokens, where equal"
        yield Bar(panel=panel.name, what=what, figure=f"{share:.0%}", is_met=share <= 0.5)


def _votes(panel: Panel, name: str, part: dict[str, Any]) -> Iterator[Bar]:
    stops, tokens, heard = part["early_stops"], part["tokens"], part["readings"]
    if stops["stopped"]:
        lost = 100 * (stops["right"] - stops["full_right"]) / stops["stopped"]
        yield _at_least(panel, f"{name}: stopped votes less the full vote", lost, -0.5)
    if panel.saves:
        share = tokens["unwritten_share"]
        yield Bar(panel=panel.name, what=f"{name}: not written", figure=f"{share:.1%}", is_met=share >= 0.2)
    error = tokens["saved_error"]
    if error is not None:
        what = f"{name}: reported saving against the actual one"
        yield Bar(panel=panel.name, what=what, figure=f"{error:+.1%}", is_met=abs(error) <= 0.1)
    for field, what in (
        ("equal_called_different", "equal answers called different"),
        ("different_called_equal", "different answers called equal"),
        ("not_counted_share", "readable voters not counted"),
    ):
        yield _below(panel.name, f"{name}: {what}", heard[field], 0.01)


def reading(name: str, records: Path) -> Iterator[Bar]:
    """Orchestra's own reading of every recorded answer of a set against the scorer's."""
    if not (records / SCORER).is_file():
        yield Bar(panel=name, what=f"reading: no {SCORER} beside the records", figure="–", is_met=None)
        return
    (file,) = set_files(records, name)
    recorded = RecordedSet.read(file, (), None)
    found = compare_readings(recorded, FileScorer(records / SCORER, name))
    share = found.read / max(1, found.scored)
    what = "set: read of what the scorer reads (at least 99.0%)"
    yield Bar(panel=name, what=what, figure=f"{share:.2%}", is_met=share >= 0.99)
    yield _below(name, "set: read differently", found.different / max(1, found.scored), 0.002)


def sets(panels: Sequence[Panel], records: Path) -> list[str]:
    """Those of the panels, and of all panels any other that is there."""
    named = {panel.set for panel in panels}
    return sorted(named | ({READING_ONLY} if len(panels) > 1 and is_there(records, READING_ONLY) else set()))


def is_there(records: Path, name: str) -> bool:
    return any((records / f"{name}{end}").is_file() for end in SUFFIXES)


def _at_least(panel: Panel, what: str, points: float, bar: float) -> Bar:
    return Bar(
        panel=panel.name,
        what=f"{what} (at least {bar:+g})",
        figure=f"{points:+.1f}",
        is_met=points >= bar - 1e-9,
    )


def _below(panel: str, what: str, share: float | None, bar: float) -> Bar:
    figure = "–" if share is None else f"{share:.2%}"
    return Bar(
        panel=panel,
        what=f"{what} (at most {bar:.1%})",
        figure=figure,
        is_met=None if share is None else share <= bar,
    )


def _part(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in report["patterns"][0]["parts"] if each["name"] == name)
    return found


def _points(part: dict[str, Any], name: str) -> float:
    return 100 * float(part[name]["interval"]["mean"])


def shares(panels: Sequence[Panel], reports: dict[str, dict[str, Any]]) -> Table:
    """The table of panels: right answers in percent, and the share of all tokens that was written."""
    made = Table(title="right answers, %", title_justify="left")
    for name in (
        "panel",
        "n",
        "ensemble",
        "best",
        "majority",
        "log-odds",
        "written",
        "auto",
        "auto took",
    ):
        made.add_column(name, justify="left" if name in ("panel", "auto took") else "right", no_wrap=True)
    for panel in panels:
        for label, job, part in (("no ratings", "silent", "all"), ("ratings", "fed", "second")):
            found = _part(reports[f"{panel.name}-{job}"], part)
            auto = _part(reports[f"{panel.name}-auto"], "second")
            chosen = reports[f"{panel.name}-auto"]["patterns"][0]["chosen"]
            most = max(chosen, key=lambda name: chosen[name]) if chosen else "–"
            made.add_row(
                f"{panel.name}, {label}",
                str(found["questions"]),
                _interval(found["pattern"]),
                _percent(found["members"][found["best"]]),
                _percent(found["majority"]),
                _percent(found["weighted"]),
                f"{found['tokens']['wrote'] / max(1, found['tokens']['whole']):.0%}",
                _interval(auto["pattern"]) if job == "fed" else "",
                f"{most} ({chosen.get(most, 0)})" if job == "fed" else "",
            )
    return made


def _percent(interval: dict[str, float] | None) -> str:
    return "–" if interval is None else f"{100 * interval['mean']:.1f}"


def _interval(interval: dict[str, float]) -> str:
    return f"{100 * interval['mean']:.1f} \\[{100 * interval['low']:.1f} to {100 * interval['high']:.1f}]"


def against_bars(found: Sequence[Bar]) -> Table:
    """Every bar, met or missed."""
    met = sum(bar.is_met is True for bar in found)
    told = sum(bar.is_met is not None for bar in found)
    made = Table(title=f"bars: {met} of {told} met", title_justify="left")
    for name in ("panel", "figure", "", "bar"):
        made.add_column(name, justify="right" if not name else "left")
    words = {True: "[green]met[/green]", False: "[red]missed[/red]", None: "–"}
    for bar in found:
        made.add_row(bar.panel, bar.what, bar.figure, words[bar.is_met])
    return made


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make eval ARGS='replay …'", description=__doc__)
    parser.add_argument("panels", nargs="*", help="of them only these")
    parser.add_argument("--records", type=Path, required=True, help="folder of SET.jsonl[.gz]")
    parser.add_argument("--out", type=Path, default=Path("eval-replay-panels"))
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_QUESTIONS} questions of each panel")
    parser.add_argument("--fresh", action="store_true", help="forget what a stopped one has asked")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--speed", type=float, default=300, help="tokens a second of each answer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="PATTERN.FIELD=VALUE")
    return parser.parse_args(words)


def chosen_panels(args: argparse.Namespace) -> list[Panel]:
    """Those that are named, whose records are there. Ends the process where some are missing."""
    known = [Panel.model_validate(each) for each in tomllib.loads(PANELS.read_text())["panel"]]
    names = {panel.name for panel in known}
    for name in args.panels:
        if name not in names:
            raise SystemExit(f"no panel {name!r}; the panels are {', '.join(sorted(names))}")
    found = [panel for panel in known if not args.panels or panel.name in args.panels]
    missing = sorted({panel.set for panel in found if not is_there(args.records, panel.set)})
    if missing:
        raise SystemExit(
            f"the recorded answers are no part of this project, and these are not in {args.records}: "
            f"{', '.join(f'{name}.jsonl.gz' for name in missing)}\n"
            "say where they are with REPLAY=DIR; docs/evaluation.md has their format, and how to judge "
            "a panel of your own from your own logs"
        )
    return found


def main() -> int:
    """0 once all is asked, whatever the bars say."""
    args = parsed()
    panels = chosen_panels(args)
    if args.fresh or (args.out / TABLE).exists():
        shutil.rmtree(args.out, ignore_errors=True)
    plan = [job for panel in panels for job in jobs(panel, args.quick)]
    reports: dict[str, dict[str, Any]] = {}
    began = time.monotonic()
    for number, job in enumerate(plan, 1):
        print(f"{number} of {len(plan)}: {job.panel.name}, {job.name}", file=sys.stderr, flush=True)
        try:
            reports[f"{job.panel.name}-{job.name}"] = asked(job, args)
        except KeyboardInterrupt:
            return STOPPED
    found = [
        bar
        for panel in panels
        for bar in bars(panel, *(reports[f"{panel.name}-{name}"] for name in ("silent", "fed", "auto")))
    ]
    for name in sets(panels, args.records):
        print(f"reading {name}", file=sys.stderr, flush=True)
        found += reading(name, args.records)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(shares(panels, reports))
    console.print(against_bars(found))
    told = [
        {"panel": bar.panel, "what": bar.what, "figure": bar.figure, "is_met": bar.is_met} for bar in found
    ]
    (args.out / TABLE).write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n")
    print(f"{time.monotonic() - began:.0f} s; reports in {args.out}/*/report.json", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
