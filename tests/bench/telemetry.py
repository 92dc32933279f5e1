"""What telemetry costs: the same requests with all of it off and on, by turns, with echo and a real model.

    python -m tests.bench.telemetry [--seconds 3] [--rounds 5]

Each variant is an `orchestra up` and a node; the spans and log records go to a collector in a process of its
own, whose CPU does not count. A ratio is that of medians to the variant `off`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.bench.load import measure
from tests.bench.orchestra_serving import echo_node, serve_orchestra
from tests.bench.serving import Serving, free_port, started

MODEL = "smollm2-135m"


@dataclass(slots=True, kw_only=True)
class Variant:
    """A cluster and its figures of each round."""

    serving: Serving
    per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def round(self, at_once: int, seconds: float) -> None:
        """Load it for `seconds`."""
        before = self.serving.cpu_s()
        load = measure(self.serving.chat_url, model=self.serving.model, at_once=at_once, seconds=seconds)
        self.cpu_ms.append((self.serving.cpu_s() - before) / load.requests * 1e3)
        self.per_second.append(load.per_second)
        self.p50_ms.append(load.p50_ms)

    def clear(self) -> None:
        for figures in (self.per_second, self.p50_ms, self.cpu_ms):
            figures.clear()


def variants(collector: str) -> dict[str, dict[str, str]]:
    """The environment of each variant."""
    silent = {"ORCHESTRA_LOGS__PUBLISH": "false"}
    traced = {"ORCHESTRA_TELEMETRY__OTLP_ENDPOINT": collector}
    tenth = traced | {"ORCHESTRA_TELEMETRY__SAMPLE_RATIO": "0.1"}
    return {
        "off": silent,
        "central log": {},
        "traces of all": silent | traced,
        "log, traces of all": traced,
        "log, traces of 10 %": tenth,
    }


@contextmanager
def serve(env: Mapping[str, str], model: str) -> Iterator[Serving]:
    """A cluster with a node for `model` and that environment."""
    real = model == MODEL
    node = ["--backend", "onnx", "--serve", MODEL] if real else echo_node()
    with serve_orchestra(node, model, env=env) as serving:
        serving.model = model
        yield serving


def compare(model: str, widths: Sequence[int], seconds: float, rounds: int, collector: str) -> None:
    """Print a table for each width."""
    with ExitStack() as stack:
        sides = {
            name: Variant(serving=stack.enter_context(serve(env, model)))
            for name, env in variants(collector).items()
        }
        for side in sides.values():
            side.round(8, 1.0)
        for at_once in widths:
            for side in sides.values():
                side.clear()
            for _ in range(rounds):
                for side in sides.values():
                    side.round(at_once, seconds)
            print(f"\n{model}, {at_once} at once, medians of {rounds} rounds")
            print(
                f"{'':22}{'requests/s':>12}{'ratio':>8}{'p50 ms':>10}{'ratio':>8}{'CPU ms':>10}{'ratio':>8}"
            )
            base = [statistics.median(figures) for figures in _figures(sides["off"])]
            for name, side in sides.items():
                found = [statistics.median(figures) for figures in _figures(side)]
                cells = "".join(
                    f"{value:>{width}.{digits}f}{value / low:>8.2f}"
                    for value, low, (width, digits) in zip(
                        found, base, ((12, 0), (10, 2), (10, 3)), strict=True
                    )
                )
                print(f"{name:22}{cells}", flush=True)


def _figures(side: Variant) -> tuple[list[float], list[float], list[float]]:
    return side.per_second, side.p50_ms, side.cpu_ms


async def collect(port: int) -> None:
    """Take spans and log records and forget them."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/{tail:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("collecting", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--collect", type=int, help="run the collector on this port")
    options = parser.parse_args()
    if options.collect:
        asyncio.run(collect(options.collect))
        return
    port = free_port()
    with started([sys.executable, "-m", "tests.bench.telemetry", "--collect", str(port)]) as collector:
        collector.wait_for_line("collecting")
        url = f"http://127.0.0.1:{port}"
        compare("bench", (1, 32), options.seconds, options.rounds, url)
        compare(MODEL, (4,), max(options.seconds, 6.0), options.rounds, url)


if __name__ == "__main__":
    main()
