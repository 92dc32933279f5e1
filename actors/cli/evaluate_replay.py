"""`orchestra eval --replay`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from actors.cli.main import FAILED, overrides_of
from actors.cli.progress import CountBar, agents_embedder
from actors.cli.show import widen
from actors.embedding.embedder import Embedder
from actors.evaluation.spec import parse_settings
from actors.evaluation.store import ResultsFile, open_results
from actors.launch.process import run
from actors.replay.cluster import data_folder, start_replay_cluster
from actors.replay.outcome import ReplayOutcome
from actors.replay.reader import AnswerScorer, FileScorer, ProductScorer
from actors.replay.runner import ReplayResult, ReplayRunner
from actors.replay.spec import (
    MAX_LISTED_SETS,
    RecordedSet,
    ReplaySpec,
    panel_settings,
    set_files,
    set_name,
)
from actors.replay.table import lines, table
from actors.settings import Settings, load
from orchestration.errors import InvalidRequest
from orchestration.evaluation.forms import AnswerForm
from orchestration.patterns.definition import NAME

STOPPED = 130
"""The exit code after Ctrl-C."""
DEFAULT_CONCURRENCY = 6
DEFAULT_SPEED, DEFAULT_CHUNK = 300.0, 32
_FORMS = (AnswerForm.EXACT, AnswerForm.NUMBER, AnswerForm.CHOICE)
_ONLY_WITH = ("models", "feedback", "learn", "scorer", "form", "speed", "chunk_tokens")
_NEVER_WITH = {"task_options": "--task", "up": "--up", "nats_url": "--nats"}


def replay_options(command: Any) -> Any:
    """The options of a replay; None if they are not used."""
    for option in (
        click.option(
            "--chunk-tokens",
            type=click.IntRange(1, 4096),
            help=f"Replay: tokens per piece of a stream. [default: {DEFAULT_CHUNK}]",
        ),
        click.option(
            "--speed",
            type=click.FloatRange(0, 1e6),
            metavar="TOKENS_PER_S",
            help=f"Replay: speed of each answer; 0: full speed. [default: {DEFAULT_SPEED:.0f}]",
        ),
        click.option(
            "--form",
            type=click.Choice([form.value for form in _FORMS]),
            help="Replay: form of answers without one in the record. [default: by gold and options]",
        ),
        click.option(
            "--scorer",
            type=click.Path(path_type=Path),
            metavar="FILE.py",
            help="Replay: Python file whose `read(set, text)` reads answers; it is executed.",
        ),
        click.option(
            "--learn/--no-learn",
            default=None,
            help="Replay: whether auto learns from runs. [default: --learn]",
        ),
        click.option(
            "--feedback",
            type=click.IntRange(min=0),
            metavar="N",
            help="Replay: give feedback, good or bad, on the first N answers. [default: 0]",
        ),
        click.option(
            "--models", metavar="NAME,…", help="Replay: models that answer. [default: all recorded models]"
        ),
        click.option(
            "--replay",
            type=click.Path(path_type=Path),
            metavar="DIR|FILE",
            help="Use recorded answers instead of models.",
        ),
    ):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """One replay of one set."""

    settings: Settings
    embedder: Embedder | None
    recorded: RecordedSet
    reader: AnswerScorer
    spec: ReplaySpec
    patterns: tuple[str, ...]
    folder: Path
    resume: bool
    concurrency: int
    timeout_s: float
    as_json: bool


def refuse_without_replay(options: dict[str, Any]) -> None:
    """Raise `InvalidRequest` for an option that only a replay has."""
    for name in _ONLY_WITH:
        if options[name] is not None:
            raise InvalidRequest(f"--{name.replace('_', '-')} needs --replay")


def replay(options: dict[str, Any]) -> int:
    """Replay each set of the folder. Returns the highest exit code."""
    for name, word in _NEVER_WITH.items():
        if options[name]:
            raise InvalidRequest(f"{word} does not go with --replay, which starts a cluster of its own")
    files = set_files(options["replay"], options["dataset"])
    if len(files) > 1 and options["models"]:
        names = ", ".join(set_name(file) for file in files[:MAX_LISTED_SETS])
        raise InvalidRequest(f"--models are of one set: name it after {options['replay']}; there: {names}")
    plans = [_plan(options, file, several=len(files) > 1) for file in files]
    reports, code = [], 0
    for plan in plans:
        if plan.recorded.left_out:
            click.echo(
                f"{plan.recorded.left_out} questions of {plan.recorded.file} have no gold answer or lack one "
                f"of some model, and are left out",
                err=True,
            )
        try:
            outcome = run(_replay(plan))
        except KeyboardInterrupt:
            return stopped(plan.folder)
        reports.append(outcome.report())
        code = max(code, _shown(plan, outcome))
    if options["as_json"]:
        click.echo(json.dumps(reports if len(files) > 1 else reports[0], ensure_ascii=False, indent=2))
    return code


def _shown(plan: ReplayPlan, outcome: ReplayOutcome) -> int:
    """The exit code of one set."""
    if not plan.as_json:
        widen(Console()).print(table(outcome))
        for line in lines(outcome):
            click.echo(line)
    for line in outcome.write(plan.folder):
        click.echo(line, err=True)
    asked = len(plan.recorded.records)
    return FAILED if all(sum(each.failures.values()) == asked for each in outcome.patterns) else 0


def stopped(folder: Path) -> int:
    """Say how to continue after Ctrl-C. Returns the exit code."""
    click.echo(f"stopped; the results so far are in {folder}: continue with --resume", err=True)
    return STOPPED


def patterns_named(text: str) -> tuple[str, ...]:
    """The names of patterns in a list. Raises `InvalidRequest` for an invalid name."""
    names = _listed(text)
    for name in names:
        if not NAME.fullmatch(name):
            raise InvalidRequest(f"--patterns: {name!r} is not a name of a pattern")
    if not names:
        raise InvalidRequest("--patterns is empty; name at least one")
    return names


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _plan(options: dict[str, Any], file: Path, *, several: bool) -> ReplayPlan:
    """`several` sets have a folder of results each below the one that is named."""
    patterns = patterns_named(options["patterns"] or "ensemble")
    models = _listed(options["models"] or "")
    recorded = RecordedSet.read(file, models, options["limit"])
    reader = _reader(options, recorded)
    for record in recorded.records:
        reader.gold(record)  # raises now what it would raise in the middle
    settings, _ = load(overrides_of(data=options["data"]), options["config_file"], find_running=False)
    return ReplayPlan(
        settings=settings,
        embedder=agents_embedder(settings),
        recorded=recorded,
        reader=reader,
        spec=_spec(options, recorded, reader, patterns, models),
        patterns=patterns,
        folder=_folder(options["out"], recorded.name, several=several),
        resume=options["resume"],
        concurrency=options["concurrency"] or DEFAULT_CONCURRENCY,
        timeout_s=options["timeout"],
        as_json=options["as_json"],
    )


def _folder(out: Path | None, name: str, *, several: bool) -> Path:
    if out is None:
        return Path(f"eval-replay-{name}")
    return out / name if several else out


def _reader(options: dict[str, Any], recorded: RecordedSet) -> AnswerScorer:
    if options["scorer"] is None:
        return ProductScorer(AnswerForm(options["form"]) if options["form"] else None)
    if options["form"]:
        raise InvalidRequest("--form and --scorer exclude each other: choose one")
    return FileScorer(options["scorer"], recorded.name)


def _spec(
    options: dict[str, Any],
    recorded: RecordedSet,
    reader: AnswerScorer,
    patterns: tuple[str, ...],
    models: tuple[str, ...],
) -> ReplaySpec:
    feedback = min(options["feedback"] or 0, len(recorded.records))
    learn = options["learn"] is not False
    if feedback and not learn:
        raise InvalidRequest("--feedback has no effect with --no-learn: choose one")
    speed = options["speed"]
    return ReplaySpec(
        replay=recorded.name,
        fingerprint=recorded.fingerprint,
        questions=len(recorded.records),
        models=recorded.models,
        reader=reader.fingerprint,
        feedback=feedback,
        learn=learn,
        model=options["model"],
        budget=options["budget"],
        temperature=options["temperature"],
        max_tokens=options["max_tokens"],
        seed=options["seed"],
        speed=DEFAULT_SPEED if speed is None else speed,
        chunk_tokens=options["chunk_tokens"] or DEFAULT_CHUNK,
        settings=panel_settings(parse_settings(options["pattern_settings"], patterns), patterns, models),
    )


async def _replay(plan: ReplayPlan) -> ReplayOutcome:
    total = len(plan.recorded.records) * len(plan.patterns)
    with open_results(plan.folder, plan.spec, ReplayResult, resume=plan.resume) as results:
        done = sum(result.error is None for result in results.of(plan.patterns))
        with CountBar("answers", total, done) as bar:
            for pattern in plan.patterns:
                await _asked(plan, pattern, results, bar)
        results_by_pattern = {pattern: results.of((pattern,)) for pattern in plan.patterns}
    return ReplayOutcome.of(plan.spec, plan.recorded, plan.reader, results_by_pattern)


async def _asked(plan: ReplayPlan, pattern: str, results: ResultsFile[ReplayResult], bar: CountBar) -> None:
    """Replay one pattern. Each has a cluster of its own, so that none learns from another's runs."""
    if all(results.is_answered(pattern, str(each.id)) for each in plan.recorded.records):
        return
    folder = plan.folder / f"cluster-{pattern}" if plan.spec.learn else None
    with data_folder(folder, lambda: bool(results.of((pattern,)))) as data:
        async with start_replay_cluster(
            plan.settings, plan.recorded, plan.spec, data, plan.embedder
        ) as cluster:
            runner = ReplayRunner(
                cluster=cluster,
                recorded=plan.recorded,
                spec=plan.spec,
                reader=plan.reader,
                results=results,
                settings=plan.settings.evaluation,
                timeout_s=plan.timeout_s,
                settle_s=plan.settings.agents.auto.flush_s + 1,
                on_result=lambda result: bar.advance(),
            )
            await runner.run(pattern, plan.concurrency)
