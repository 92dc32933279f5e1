"""`orchestra eval`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from actors.bus.bus import Bus
from actors.cli.evaluate_replay import patterns_named, refuse_without_replay, replay, replay_options, stopped
from actors.cli.main import FAILED, common, nats_option, overrides_of
from actors.cli.progress import CountBar, agents_embedder, pull_model
from actors.cli.reach import nats_url_of
from actors.cli.show import widen
from actors.evaluation.dataset import Dataset, read_jsonl
from actors.evaluation.outcome import EvaluationResult
from actors.evaluation.runner import EvaluationRunner
from actors.evaluation.spec import PATTERNS, Spec, json_or_text, parse_settings
from actors.evaluation.store import open_results
from actors.evaluation.table import table
from actors.evaluation.tasks import make_task
from actors.launch.process import connected, run
from actors.launch.up import run_up
from actors.settings import Settings, load
from orchestration.errors import InvalidRequest
from orchestration.evaluation.result import Result

ANY_PORT = "127.0.0.1:0"
DEFAULT_BUDGET, DEFAULT_CONCURRENCY = 1000, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """One evaluation. `models` are the folders of the models to serve in a cluster of its own; None: the
    cluster runs already."""

    settings: Settings
    dataset: Dataset
    spec: Spec
    patterns: tuple[str, ...]
    folder: Path
    resume: bool
    concurrency: int
    timeout_s: float
    models: tuple[Path, ...] | None
    as_json: bool


def conditions(command: Any) -> Any:
    """The options of the comparison."""
    for option in (
        click.option(
            "--seed", type=int, default=0, show_default=True, help="Seed of tasks, sampling and statistics."
        ),
        click.option("--max-tokens", type=click.IntRange(min=1), help="Maximum tokens of an answer."),
        click.option(
            "--temperature",
            type=click.FloatRange(0, 2),
            help="Temperature, unless the pattern sets one. [default: 0; replay: not set]",
        ),
        click.option("--model", metavar="NAME", help="Model for all steps. [default: each role chooses]"),
        click.option(
            "--set",
            "pattern_settings",
            multiple=True,
            metavar="PATTERN.FIELD=VALUE",
            help="Setting of a pattern; repeatable.",
        ),
        click.option(
            "--task",
            "task_options",
            multiple=True,
            metavar="KEY=VALUE",
            help="Option of the task, such as max_terms=3; repeatable.",
        ),
        click.option(
            "--limit",
            type=click.IntRange(min=1),
            help="Maximum questions. [default: all of a file, 50 of a task]",
        ),
        click.option(
            "--budget",
            type=click.IntRange(min=1),
            metavar="TOKENS",
            help="Maximum tokens of prompts and answers per question. [default: 1000; replay: none]",
        ),
        click.option(
            "--patterns",
            metavar="NAME,…",
            help=f"Patterns to compare. [default: {','.join(PATTERNS)}; replay: ensemble]",
        ),
    ):
        command = option(command)
    return command


@click.command("eval")
@click.argument("dataset", metavar="FILE.jsonl|TASK|SET", required=False)
@conditions
@replay_options
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    help="Questions in progress; with more, each takes longer. [default: 2; replay: 6]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=600,
    show_default=True,
    help="Timeout of one question in seconds.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for results.jsonl, report.json and plot.png. [default: eval-<dataset>, eval-replay-<set>]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue with the results in that folder; failed questions are asked again.",
)
@click.option("--up", is_flag=True, help="Start a cluster in this process, as `orchestra up` does.")
@click.option("--json", "as_json", is_flag=True, help="Print the report instead of the table.")
@common
@nats_option
def evaluate(**options: Any) -> None:
    """Compare patterns on questions with known answers, with the same budget of tokens for each.

    A file has lines of JSON, {"question", "answer", "kind", "id"}; kind is exact, number, choice, contains or
    regex; kind and id are optional. A task is one of reasoning-gym's, such as chain_sum.

    The baseline is self-consistency: one model is asked several times for the same tokens, and the most
    frequent answer counts. The table shows the gain or loss of each pattern against it.

    With --replay, a cluster of its own answers with recorded answers: SET.jsonl of a folder, or a file, with
    lines {"id", "messages", "gold", "options"?, "form"?, "answers": {MODEL: TEXT or [TEXT, …]}}.
    The table shows each pattern, each model, the majority of the models, and their cost.
    """
    if options["replay"] is not None:
        raise SystemExit(replay(options))
    refuse_without_replay(options)
    plan = _plan(options)
    try:
        raise SystemExit(run(_evaluate(plan)))
    except KeyboardInterrupt:
        raise SystemExit(stopped(plan.folder)) from None


def _plan(options: dict[str, Any]) -> EvaluationPlan:
    up = options["up"]
    if up and options["nats_url"]:
        raise InvalidRequest("--up starts a cluster of its own and --nats uses another: choose one")
    patterns = patterns_named(options["patterns"] or ",".join(PATTERNS))
    dataset = _dataset(options)
    settings, _ = load(
        overrides_of(
            data=options["data"],
            nats__url=options["nats_url"],
            gateway__http=ANY_PORT if up else None,
            models=(options["model"],) if up and options["model"] else None,
        ),
        options["config_file"],
    )
    spec = Spec.of(
        dataset,
        budget=options["budget"] or DEFAULT_BUDGET,
        model=options["model"],
        temperature=options["temperature"] or 0.0,
        max_tokens=options["max_tokens"],
        seed=options["seed"],
        settings=parse_settings(options["pattern_settings"], patterns),
    )
    models = None
    if up:
        models = tuple(pull_model(name, settings.models_folder) for name in settings.models)
    return EvaluationPlan(
        settings=settings,
        dataset=dataset,
        spec=spec,
        patterns=patterns,
        folder=options["out"] or Path(f"eval-{dataset.name}"),
        resume=options["resume"],
        concurrency=options["concurrency"] or DEFAULT_CONCURRENCY,
        timeout_s=options["timeout"],
        models=models,
        as_json=options["as_json"],
    )


def _dataset(options: dict[str, Any]) -> Dataset:
    name, task_options = options["dataset"], options["task_options"]
    if not name:
        raise InvalidRequest("name a file of questions or a task, or recorded answers with --replay")
    if Path(name).suffix or "/" in name or Path(name).exists():
        if task_options:
            raise InvalidRequest(f"--task does not go with a file, such as {name}")
        return read_jsonl(Path(name), options["limit"])
    task_settings = {}
    for text in task_options:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidRequest(f"--task takes KEY=VALUE, not {text!r}")
        task_settings[key] = json_or_text(value)
    return make_task(name, size=options["limit"], seed=options["seed"], options=task_settings)


async def _evaluate(plan: EvaluationPlan) -> int:
    total = len(plan.dataset.questions) * len(plan.patterns)
    with open_results(plan.folder, plan.spec, Result, resume=plan.resume) as results:
        done = sum(result.error is None for result in results.of(plan.patterns))
        async with _cluster(plan) as bus:
            with CountBar("answers", total, done) as bar:
                runner = EvaluationRunner(
                    bus=bus,
                    spec=plan.spec,
                    results=results,
                    settings=plan.settings.evaluation,
                    timeout_s=plan.timeout_s,
                    on_result=lambda result: bar.advance(),
                )
                await runner.run(plan.dataset, plan.patterns, plan.concurrency)
        outcome = EvaluationResult.of(plan.spec, results.of(plan.patterns), plan.settings.evaluation.prices)
    if plan.as_json:
        click.echo(json.dumps(outcome.report(), ensure_ascii=False, indent=2))
    else:
        widen(Console()).print(table(plan.spec, outcome.standings))
    for line in outcome.write(plan.folder):
        click.echo(line, err=True)
    return FAILED if all(sum(each.failures.values()) == each.questions for each in outcome.standings) else 0


@asynccontextmanager
async def _cluster(plan: EvaluationPlan) -> AsyncIterator[Bus]:
    """A connection to the running cluster, or to one of its own."""
    if plan.models is None:
        async with connected(plan.settings, nats_url_of(plan.settings), "orchestra-eval") as bus:
            yield bus
        return
    async with run_up(plan.settings, plan.models, agents_embedder(plan.settings)) as running:
        async with connected(plan.settings, running.nats_url, "orchestra-eval") as bus:
            yield bus
