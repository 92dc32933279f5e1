"""`orchestra feedback`."""

from __future__ import annotations

from pathlib import Path

import click

from actors.cli.main import common, nats_option, overrides_of
from actors.cli.reach import nats_url_of
from actors.config.client import ClientSettings, load_client
from actors.launch.process import connected, run
from actors.learning.feedback import SCORES
from actors.runtime.service_client import feedback_call
from orchestration.errors import InvalidRequest


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("score", metavar="good|bad|SCORE")
@click.option("--comment", default="", help="Reason of the rating; stored for a day.")
@common
@nats_option
def feedback(
    run_id: str,
    score: str,
    comment: str,
    data: Path | None,
    config_file: Path | None,
    nats_url: str | None,
) -> None:
    """Rate the answer of RUN: good, bad, or a number from -1 to 1. The pattern `auto` learns from it.

    `orchestra ask --json` and the header X-Orchestra-Run name the run. Of several words on a run the last
    counts. A number below 0 comes after `--`.
    """
    settings = load_client(overrides_of(data=data, nats__url=nats_url), config_file)
    raise SystemExit(run(_give(settings, {"run": run_id, "score": _score(score), "comment": comment})))


def _score(text: str) -> str | float:
    if text in SCORES:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise InvalidRequest(f"score {text!r} is not good, bad, or a number from -1 to 1") from error


async def _give(settings: ClientSettings, body: dict[str, object]) -> int:
    async with connected(settings, nats_url_of(settings), "orchestra-feedback") as bus:
        counted = await feedback_call(bus, body)
    instead = f", instead of {counted['replaced']:g}" if counted.get("replaced") is not None else ""
    click.echo(
        f"recorded {counted['score']:g} for {counted['pattern']} on {counted['kind']} questions{instead}"
    )
    return 0
