"""Gateways side by side before one zero-cost upstream, and engines side by side on one GGUF.

    python -m tests.bench.peers [--rounds 3] [--seconds 3] [--only litellm --only orchestra] [--no-engines]
        [--write docs/comparison.md]

All gateways are up at the same time and asked one after another, in rounds; the figures are medians over the
rounds. Whole answers and full-speed streams are asked by `wrk` (20 chunks each); paced streams, a chunk each
20 ms, by `tests/bench/streams.py`. The first row is the upstream without a gateway. Peers are installed on
first use (see `tests/bench/peer_gateways.py`); one that cannot be had is named with the reason. Prints
Markdown; about eight minutes with the engines.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench import engines
from tests.bench.load import chat_body
from tests.bench.orchestra_serving import openai_node, serve_orchestra, serve_orchestra_with_node
from tests.bench.peer_gateways import (
    PeerMissing,
    serve_litellm,
    serve_portkey,
    serve_tensorzero,
    serve_vllm_router,
)
from tests.bench.serving import Serving
from tests.bench.streams import StreamTimes, measure_streams
from tests.bench.wrk import WrkLoad, WrkMissing, require_wrk, wrk
from tests.fixtures.zero_upstream import zero_upstream

CHUNKS = 20
INTERVAL_MS = 20
AT_ONCE = 32
UPSTREAM = "upstream"
_PACED = "slowly"
MARKS = ("<!-- peers: begin -->", "<!-- peers: end -->")
_TITLES = (
    "gateways",
    "1 connection: req/s",
    f"{AT_ONCE}: req/s (p50 ms)",
    f"CPU-s per 1,000 at {AT_ONCE}",
    f"stream, chunk each {INTERVAL_MS} ms: first / each chunk +ms",
    f"{AT_ONCE} such streams: first ms (p99)",
    f"{AT_ONCE} streams at full speed/s",
    "MiB",
)


@contextmanager
def serve_upstream(upstream: str) -> Iterator[Serving]:
    """The upstream itself."""
    yield Serving(name="no gateway", url=upstream.removesuffix("/v1"), roots=())


@contextmanager
def serve_orchestra_node_apart(upstream: str) -> Iterator[Serving]:
    """`orchestra up`, and `orchestra node` in a process of its own."""
    with serve_orchestra(openai_node(upstream)) as server:
        server.name = "Orchestra, node apart"
        yield server


GATEWAYS: dict[str, Callable[[str], AbstractContextManager[Serving]]] = {
    UPSTREAM: serve_upstream,
    "vllm-router": serve_vllm_router,
    "tensorzero": serve_tensorzero,
    "portkey": serve_portkey,
    "orchestra-in-up": serve_orchestra_with_node,
    "orchestra": serve_orchestra_node_apart,
    "litellm": serve_litellm,
}


@dataclass(slots=True)
class Measured:
    """A gateway and what the rounds measured of it."""

    server: Serving
    alone: list[WrkLoad] = field(default_factory=list)
    wide: list[WrkLoad] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    """Per 1,000 requests."""
    stream: StreamTimes = field(default_factory=StreamTimes)
    streams: StreamTimes = field(default_factory=StreamTimes)
    full_speed: list[WrkLoad] = field(default_factory=list)

    def measure_alone(self, seconds: float) -> None:
        self.alone.append(wrk(self.server, at_once=1, seconds=seconds))

    def measure_wide(self, seconds: float) -> None:
        before = self.server.cpu_s()
        load = wrk(self.server, at_once=AT_ONCE, seconds=seconds)
        self.wide.append(load)
        self.cpu_s.append((self.server.cpu_s() - before) / load.requests * 1e3)

    def measure_full_speed(self, seconds: float) -> None:
        self.full_speed.append(wrk(self.server, at_once=AT_ONCE, seconds=seconds, stream=True))

    def measure_stream(self, seconds: float) -> None:
        self._add(self.stream, 1, seconds)

    def measure_streams(self, seconds: float) -> None:
        self._add(self.streams, AT_ONCE, seconds)

    def _add(self, times: StreamTimes, at_once: int, seconds: float) -> None:
        taken = measure_streams(
            self.server,
            chat_body(self.server.model, stream=True, text=f"count {_PACED}"),
            chunks=CHUNKS,
            at_once=at_once,
            seconds=seconds,
            apart_s=CHUNKS * INTERVAL_MS / 1e3 / at_once,
        )
        times.first_ms += taken.first_ms
        times.transit_ms += taken.transit_ms

    def row(self, bare: Measured | None) -> str:
        """A line of the table; a stream alone is told as what it takes more than through `bare`."""
        first, chunk = median(self.stream.first_ms), median(self.stream.transit_ms)
        if bare is not None and bare is not self:
            first -= median(bare.stream.first_ms)
            chunk -= median(bare.stream.transit_ms)
        firsts = sorted(self.streams.first_ms)
        p50 = median(load.p50_ms for load in self.wide)
        cells = (
            self.server.name,
            f"{median(load.per_second for load in self.alone):,.0f}",
            f"{median(load.per_second for load in self.wide):,.0f} ({p50:.1f})",
            f"{median(self.cpu_s):.3f}" if self.server.roots else "–",
            f"{first:.1f} / {chunk:.1f}",
            f"{median(firsts):.1f} ({firsts[int(len(firsts) * 0.99)]:.0f})",
            f"{median(load.per_second for load in self.full_speed):,.0f}",
            f"{self.server.rss_mb() * 1e6 / 2**20:.0f}" if self.server.roots else "–",
        )
        return "| " + " | ".join(cells) + " |"


def start_all(names: list[str], upstream: str, stack: ExitStack) -> list[Measured]:
    """Start the named gateways and warm each; print which cannot be had."""
    sides = []
    for name in names:
        try:
            server = stack.enter_context(GATEWAYS[name](upstream))
        except PeerMissing as error:
            print(f"left out: {name} cannot be installed: {error}", flush=True)
            continue
        except RuntimeError as error:
            print(f"left out: {name} does not start: {str(error).strip().splitlines()[0]}", flush=True)
            print(error, file=sys.stderr, flush=True)
            continue
        wrk(server, at_once=8, seconds=2)
        wrk(server, at_once=8, seconds=3, stream=True)
        sides.append(Measured(server))
    return sides


def compare(names: list[str], rounds: int, seconds: float) -> list[str]:
    """Measure the gateways in turns; the lines of the table."""
    with ExitStack() as stack:
        upstream = stack.enter_context(
            zero_upstream(chunks=CHUNKS, interval_ms=INTERVAL_MS, stamp=True, paced_word=_PACED)
        )
        sides = start_all(names, upstream, stack)
        kinds = (
            Measured.measure_alone,
            Measured.measure_wide,
            Measured.measure_stream,
            Measured.measure_streams,
            Measured.measure_full_speed,
        )
        for number in range(rounds):
            for kind in kinds:
                for side in sides:
                    kind(side, seconds)
            print(f"round {number + 1} of {rounds} is done", file=sys.stderr, flush=True)
        bare = next((side for side in sides if not side.server.roots), None)
        head = ["| " + " | ".join(_TITLES) + " |", "|---" * len(_TITLES) + "|"]
        return head + [side.row(bare) for side in sides]


def machine() -> str:
    """This machine in words, and the day."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.processor() or platform.machine()
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({cpu}), Python {platform.python_version()}"


def write(page: Path, lines: list[str]) -> None:
    """Put the tables between the marks of a page."""
    head, _, rest = page.read_text().partition(MARKS[0])
    _, mark, tail = rest.partition(MARKS[1])
    if not mark:
        raise ValueError(f"{page} has no lines {MARKS[0]} and {MARKS[1]}")
    page.write_text("\n".join([head + MARKS[0], "", *lines, "", MARKS[1] + tail]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="For each measurement of a round.")
    parser.add_argument("--only", choices=list(GATEWAYS), action="append", help="Repeat for more; else all.")
    parser.add_argument("--no-engines", action="store_true")
    parser.add_argument("--write", type=Path, help="Page of the docs to put the tables into.")
    options = parser.parse_args()
    try:
        require_wrk()
    except WrkMissing as error:
        print(error, file=sys.stderr)
        return 1
    lines = [machine() + ":", ""]
    lines += compare(options.only or list(GATEWAYS), options.rounds, options.seconds)
    if not options.no_engines:
        names = [*engines.BACKENDS, engines.LLAMA]
        lines += ["", *engines.table(names, engines.WIDTHS, options.rounds, 96)]
    print("\n".join(lines))
    if options.write is not None:
        write(options.write, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
