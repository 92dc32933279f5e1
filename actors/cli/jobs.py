"""`orchestra jobs`: submit jobs, follow them, fetch their answers, and manage dead letters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import click
from rich.console import Console

from actors.admin.audit import Changed
from actors.bus.bus import Bus
from actors.cli.main import FAILED, ErrorReportingGroup
from actors.cli.operator import (
    change_each,
    changing,
    confirm,
    operator_name,
    print_json,
    print_table,
    record_command,
    show_answer,
)
from actors.cli.pattern_options import orchestra_of, pattern_options
from actors.cli.reach import on_cluster, reaching
from actors.jobs.dead_letters import DeadLetterStore
from actors.jobs.wait_for_job import wait_for_job
from actors.runtime.envelope import OPERATOR, REASON
from actors.runtime.service_client import jobs_call
from orchestration.errors import InvalidRequest
from orchestration.virtual_models import PATTERN_PREFIX

Work = Callable[[Bus], Coroutine[Any, Any, int]]
LISTED = 20


def _run(options: dict[str, Any], work: Work) -> None:
    raise SystemExit(on_cluster(options, "orchestra-jobs", work))


@click.group(cls=ErrorReportingGroup)
def jobs() -> None:
    """Submit questions, and fetch their answers later. Jobs survive the crash of any process."""


@jobs.command()
@click.argument("question")
@pattern_options
@click.option("--max-tokens", type=click.IntRange(min=1), help="Maximum tokens of the answer.")
@click.option("--priority", type=click.Choice(("standard", "batch")), default="standard", show_default=True)
@click.option(
    "--key", default="", metavar="TEXT", help="Idempotency key: a second job with the same key is not made."
)
@click.option("--webhook", metavar="URL", help="URL that is called when the job has ended; calls are signed.")
@click.option("--wait", "waits", is_flag=True, help="Wait for the end, and print the answer.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON, not only its id or answer.")
@reaching
def submit(question: str, waits: bool, as_json: bool, key: str, **options: Any) -> None:
    """Submit QUESTION (`-` reads stdin), and print the job's id."""
    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise InvalidRequest("the question is empty")
    body = _body(text, options)

    async def work(bus: Bus) -> int:
        job = await jobs_call(bus, "submit", body, {"Idempotency-Key": key} if key else None)
        if waits:
            return await _wait(bus, job["id"], as_json=as_json)
        if as_json:
            print_json(job)
        else:
            click.echo(job["id"])
        return 0

    _run(options, work)


def _body(text: str, options: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": PATTERN_PREFIX + options["pattern"],
        "messages": [{"role": "user", "content": text}],
        "orchestra": {"priority": options["priority"]} | orchestra_of(options),
    }
    for name in ("max_tokens", "webhook"):
        if options[name] is not None:
            body[name] = options[name]
    return body


@jobs.command()
@click.argument("job_id", metavar="ID")
@reaching
def get(job_id: str, **options: Any) -> None:
    """Print a job as JSON, with its answer if it has ended."""

    async def work(bus: Bus) -> int:
        print_json(await jobs_call(bus, "get", {"id": job_id}))
        return 0

    _run(options, work)


@jobs.command()
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON, not only its answer.")
@reaching
def wait(job_id: str, as_json: bool, **options: Any) -> None:
    """Wait for the end of a job: progress on stderr, the answer on stdout."""
    _run(options, lambda bus: _wait(bus, job_id, as_json=as_json))


async def _wait(bus: Bus, job_id: str, *, as_json: bool) -> int:
    console = Console(stderr=True, highlight=False)

    def on_progress(text: str) -> None:
        console.print(f"· {text}", style="dim", markup=False)

    job = await wait_for_job(bus, job_id, on_progress)
    succeeded = job["status"] == "succeeded"
    if as_json:
        print_json(job)
    elif succeeded:
        message = job["result"]["choices"][0]["message"]
        click.echo(message["content"] or message["refusal"] or "")
    else:
        error = job["error"] or {"message": ""}
        click.echo(f"orchestra: {job_id} is {job['status']}: {error['message']}", err=True)
    return 0 if succeeded else FAILED


@jobs.command()
@click.argument("job_id", metavar="ID")
@changing
def cancel(job_id: str, reason: str, as_json: bool, **options: Any) -> None:
    """Cancel a job, and print its status. A job that has ended does not change. It never asks."""

    async def work(bus: Bus) -> int:
        headers = {OPERATOR: operator_name(), REASON: reason}
        job = await jobs_call(bus, "cancel", {"id": job_id}, headers)
        show_answer(job, job["status"], as_json=as_json)
        return 0

    _run(options, work)


@jobs.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=LISTED, show_default=True)
@click.option("--before", type=click.IntRange(min=0), default=0, help="`next` of the previous page.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reaching
def list_(limit: int, before: int, as_json: bool, **options: Any) -> None:
    """List jobs, the last changed first."""

    async def work(bus: Bus) -> int:
        page = await jobs_call(bus, "list", {"limit": limit, "before": before})
        if as_json:
            print_json(page)
            return 0
        rows = [
            (job["id"], job["status"], job["model"], job["priority"], str(job["attempts"]))
            for job in page["data"]
        ]
        _table(("id", "status", "model", "priority", "attempts"), rows, page["next"])
        return 0

    _run(options, work)


@jobs.group(cls=ErrorReportingGroup)
def dead() -> None:
    """Show, retry or delete dead letters: work that was given up, with the reason."""


@dead.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=LISTED, show_default=True)
@click.option("--before", type=click.IntRange(min=0), default=0, help="`next` of the previous page.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reaching
def dead_list(limit: int, before: int, as_json: bool, **options: Any) -> None:
    """List dead letters, the latest first."""

    async def work(bus: Bus) -> int:
        letters, more = await DeadLetterStore(bus).list(limit=limit, before=before)
        if as_json:
            print_json({"data": [letter.to_json(body=False) for letter in letters], "next": more})
            return 0
        rows = [
            (str(letter.number), letter.kind, letter.id, str(letter.attempts), letter.reason)
            for letter in letters
        ]
        _table(("number", "kind", "id", "attempts", "reason"), rows, more)
        return 0

    _run(options, work)


@dead.command("show")
@click.argument("number", type=click.IntRange(min=1))
@reaching
def dead_show(number: int, **options: Any) -> None:
    """Print one dead letter as JSON: reason, last error, trace, and the work itself."""

    async def work(bus: Bus) -> int:
        print_json((await DeadLetterStore(bus).show(number)).to_json(body=True))
        return 0

    _run(options, work)


@dead.command("retry")
@click.argument("numbers", type=click.IntRange(min=1), nargs=-1, required=True)
@changing
def dead_retry(numbers: tuple[int, ...], reason: str, as_json: bool, **options: Any) -> None:
    """Queue dead letters again, with all their attempts; prints their ids. It never asks."""

    async def work(bus: Bus) -> int:
        async def retry(number: int) -> dict[str, Any]:
            job_id = await DeadLetterStore(bus).retry(number)
            await record_command(bus, "dead.retry", _letter(number, {"queued": job_id}), reason)
            return {"number": number, "id": job_id}

        await change_each(numbers, retry, lambda queued: queued["id"], as_json=as_json)
        return 0

    _run(options, work)


@dead.command("drop")
@click.argument("numbers", type=click.IntRange(min=1), nargs=-1, required=True)
@changing
def dead_drop(numbers: tuple[int, ...], reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Delete dead letters for good."""

    async def work(bus: Bus) -> int:
        async def drop(number: int) -> int:
            await DeadLetterStore(bus).drop(number)
            await record_command(bus, "dead.delete", _letter(number, None), reason)
            return number

        await confirm(f"Delete for good dead letters {', '.join(map(str, numbers))}", yes=yes)
        await change_each(numbers, drop, lambda number: "", as_json=as_json)
        return 0

    _run(options, work)


def _letter(number: int, after: dict[str, str] | None) -> Changed:
    """What the audit says of a dead letter that was retried or deleted."""
    return Changed(target=f"dead letter {number}", before={"dead": True}, after=after, body={})


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], more: int) -> None:
    if rows:
        print_table(columns, rows)
    else:
        click.echo("none")
    if more:
        click.echo(f"more: --before {more}")
