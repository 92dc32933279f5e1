"""`orchestra top`."""

from __future__ import annotations

import asyncio
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from actors.admin.overview import OverviewReader
from actors.admin.overview_rows import Overview
from actors.bus.bus import Bus
from actors.cli.overview_picture import Shape, draw_overview
from actors.cli.reach import on_cluster, reaching
from actors.cli.show import widen
from orchestration.errors import InvalidRequest, OrchestraError

ROWS_BESIDE = 14
"""Lines of the picture that are no rows of tables."""
QUIT = "q"


@click.command()
@reaching
@click.option(
    "--interval",
    type=click.FloatRange(min=0.5, max=60),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two readings.",
)
@click.option("--once", is_flag=True, help="Print one picture, after one interval, and end.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per interval, or one with --once."
)
def top(interval: float, once: bool, as_json: bool, **options: Any) -> None:
    """Watch the cluster: nodes, models, queues, rates, time to first token and errors. `q` or Ctrl-C ends
    it."""
    if not (once or as_json or sys.stdout.isatty()):
        raise InvalidRequest("orchestra top needs a terminal: use --once or --json")

    async def work(bus: Bus) -> None:
        reader = OverviewReader(bus)
        if once or as_json:
            await _print(reader, interval, once=once, as_json=as_json)
        else:
            await _watch(reader, interval)

    with suppress(KeyboardInterrupt):
        on_cluster(options, "orchestra-top", work)


async def _print(reader: OverviewReader, interval_s: float, *, once: bool, as_json: bool) -> None:
    await reader.read()
    while True:
        await asyncio.sleep(interval_s)
        overview = await reader.read()
        if as_json:
            click.echo(overview.model_dump_json())
        else:
            console = widen(Console())
            console.print(draw_overview(overview, Shape.of(console.width, live=True)))
        if once:
            return


async def _watch(reader: OverviewReader, interval_s: float) -> None:
    """Draw until `q`. While the cluster cannot be read, the last picture stays, with the reason."""
    console = Console()
    ended = asyncio.Event()
    overview: Overview | None = None
    with Live(console=console, screen=True, auto_refresh=False) as live, _keys(ended):
        while not ended.is_set():
            problem = ""
            try:
                overview = await reader.read()
            except OrchestraError as error:
                problem = error.message
            rows = max(3, (console.height - ROWS_BESIDE) // 3)
            shape = Shape.of(console.width, live=True, rows=rows)
            picture = Text("…") if overview is None else draw_overview(overview, shape)
            live.update(Text(problem, style="red") if problem and overview is None else picture, refresh=True)
            if problem and overview is not None:
                live.console.print(Text(problem, style="red"))
            try:
                async with asyncio.timeout(interval_s):
                    await ended.wait()
            except TimeoutError:
                continue


@contextmanager
def _keys(ended: asyncio.Event) -> Iterator[None]:
    """Set `ended` once `q` is typed. The terminal is restored at the end."""
    if not sys.stdin.isatty():
        yield
        return
    stdin, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(stdin)

    def typed() -> None:
        if sys.stdin.read(1) in (QUIT, ""):
            ended.set()

    tty.setcbreak(stdin)
    loop.add_reader(stdin, typed)
    try:
        yield
    finally:
        loop.remove_reader(stdin)
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
