"""Requests per second before one zero-cost upstream: LiteLLM's proxy, Orchestra, and Orchestra with echo.

    python -m tests.bench.litellm_vs_orchestra [--rounds 3] [--seconds 5] [--only litellm]

Alternates rounds between the servers, all up at the same time but one asked at a time, and prints the
median of each figure. Orchestra's path is the whole one: HTTP, work queue, dispatcher, node, upstream.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.bench.litellm_proxy import serve_litellm
from tests.bench.load import Load, measure
from tests.bench.orchestra_serving import echo_node, openai_node, serve_orchestra
from tests.bench.serving import Serving
from tests.fixtures.zero_upstream import zero_upstream

WIDTHS = (1, 32)
SIDES = ("upstream", "litellm", "orchestra", "echo")


@dataclass(slots=True)
class Side:
    """A server and what was measured of it: loads, and CPU in ms a request, by width."""

    server: Serving
    loads: dict[int, list[Load]] = field(default_factory=dict)
    cpu_ms: dict[int, list[float]] = field(default_factory=dict)

    def round(self, at_once: int, seconds: float) -> None:
        cpu = self.server.cpu_s()
        load = measure(self.server.chat_url, model="bench", at_once=at_once, seconds=seconds)
        self.loads.setdefault(at_once, []).append(load)
        self.cpu_ms.setdefault(at_once, []).append((self.server.cpu_s() - cpu) / max(1, load.requests) * 1e3)

    def per_second(self, at_once: int) -> float:
        return statistics.median(load.per_second for load in self.loads[at_once])

    def row(self, at_once: int) -> str:
        loads = self.loads[at_once]
        p50 = statistics.median(load.p50_ms for load in loads)
        p99 = statistics.median(load.p99_ms for load in loads)
        cpu = statistics.median(self.cpu_ms[at_once])
        return (
            f"{self.server.name:<24} {at_once:>7} {self.per_second(at_once):>9.0f} {p50:>8.2f} {p99:>8.2f} "
            f"{cpu:>8.2f} {self.server.rss_mb():>7.0f}"
        )


def run(names: tuple[str, ...], rounds: int, seconds: float) -> dict[str, Side]:
    """Start the named servers, warm each, then take `rounds` of each width in turn. Prints the table."""
    with ExitStack() as stack:
        upstream = stack.enter_context(zero_upstream())
        sides: dict[str, Side] = {}
        for name in names:
            if name == "upstream":
                server = Serving(name="the upstream itself", url=upstream.removesuffix("/v1"), roots=())
            elif name == "litellm":
                server = stack.enter_context(serve_litellm(upstream))
            else:
                node = openai_node(upstream) if name == "orchestra" else echo_node()
                server = stack.enter_context(serve_orchestra(node))
                server.name = f"Orchestra, {node[1]} node"
            sides[name] = Side(server)
            measure(server.chat_url, model="bench", at_once=8, seconds=2)
        for _ in range(rounds):
            for at_once in WIDTHS:
                for side in sides.values():
                    side.round(at_once, seconds)
        print(f"{'':24} {'at once':>7} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>8} {'RSS MB':>7}")
        for at_once in WIDTHS:
            for side in sides.values():
                print(side.row(at_once))
        return sides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--only", choices=SIDES, action="append", help="Repeat for more; else all.")
    options = parser.parse_args()
    sides = run(tuple(options.only or SIDES), options.rounds, options.seconds)
    for name in ("orchestra", "echo"):
        if name in sides and "litellm" in sides:
            for at_once in WIDTHS:
                ratio = sides[name].per_second(at_once) / sides["litellm"].per_second(at_once)
                print(f"{sides[name].server.name} / LiteLLM at {at_once}: {ratio:.1f} times the requests")


if __name__ == "__main__":
    main()
