"""The ONNX node against llama.cpp's server on the same GGUF, two threads each, in processes of their own.

    python -m tests.bench.onnx_vs_llamacpp [--runs 3] [--at-once 1 8 16] [--slots 17] [--tokens 96]

For each number of generations at once: tokens per second, tokens per CPU-second of the serving process, and
the time to first token of a request that arrives while the others run. Medians of runs in which the two
engines take turns. llama.cpp is asked over HTTP by this process, ours within its own process, so ours pays
for its client and llama.cpp does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol, cast

import aiohttp
import psutil

from actors.backends.base import Backend
from actors.engine.onnx_backend import OnnxBackend
from actors.engine.settings import OnnxSettings
from orchestration.messages import ChatGeneration, ChatMessage, Sampling, TextDelta
from tests.fixtures.llamacpp import LlamaServer, serve_llamacpp, smollm2_gguf
from tests.fixtures.models import smollm2_folder

SYSTEM = (
    "You are the research specialist of a team. You collect facts, name sources and say what is unsure. " * 10
)
SUBJECTS = ("ants", "bees", "clouds", "deserts", "engines", "forests", "glass", "harbours", "ice", "jungles")
LATE = (
    "{}. I read yesterday that the tides are caused by the moon and, to a lesser degree, by the sun. Explain "
    "to me in simple words how that works, and why there are two high tides a day instead of one."
)


class Client(Protocol):
    """An engine under measurement."""

    pid: int
    """The serving process."""

    def stream(self, text: str, *, max_tokens: int, system: str = "") -> AsyncIterator[int]:
        """Tokens of a greedy answer as they come, as counts."""

    def cpu_s(self) -> float:
        """CPU seconds of the serving process so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One run. Times in seconds; `lag_p99_s` is the event loop's, measured for ours only."""

    tokens_per_s: float
    tokens_per_cpu_s: float
    late_first_token_s: float
    lag_p99_s: float = 0.0


class Onnx:
    """A backend of ours in this process."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.pid = os.getpid()

    def cpu_s(self) -> float:
        return sum(psutil.Process().cpu_times()[:2])

    async def stream(self, text: str, *, max_tokens: int, system: str = "") -> AsyncIterator[int]:
        messages = (ChatMessage(role="system", content=system),) if system else ()
        generation = ChatGeneration(
            id="bench.0",
            model="smollm2-135m",
            messages=(*messages, ChatMessage(role="user", content=text)),
            sampling=Sampling(temperature=0, max_tokens=max_tokens),
        )
        async with aclosing(cast(Any, self._backend.generate(generation))) as items:
            async for item in items:
                if isinstance(item, TextDelta):
                    yield item.tokens


class Llama:
    """llama.cpp's server over HTTP."""

    def __init__(self, server: LlamaServer, http: aiohttp.ClientSession) -> None:
        self._server = server
        self.pid = server.pid
        self._http = http

    def cpu_s(self) -> float:
        return sum(psutil.Process(self._server.pid).cpu_times()[:2])

    async def stream(self, text: str, *, max_tokens: int, system: str = "") -> AsyncIterator[int]:
        messages = [{"role": "system", "content": system}] if system else []
        body = {
            "messages": [*messages, {"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": max_tokens,
            "stream": True,
        }
        async with self._http.post(f"{self._server.base_url}/chat/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    delta = json.loads(line[6:])["choices"][0]["delta"]
                    if delta.get("content"):
                        yield 1


async def throughput(client: Client, at_once: int, tokens: int, salt: str) -> tuple[float, float]:
    """Tokens per second and per CPU-second of `at_once` answers begun together."""

    async def one(number: int) -> int:
        subject = SUBJECTS[number % len(SUBJECTS)]
        prompt = f"Write a long story about {subject}. Begin with the number {salt}{number}."
        return sum([count async for count in client.stream(prompt, max_tokens=tokens)])

    cpu, began = client.cpu_s(), time.perf_counter()
    counts = await asyncio.gather(*(one(number) for number in range(at_once)))
    taken = time.perf_counter() - began
    return sum(counts) / taken, sum(counts) / (client.cpu_s() - cpu)


async def first_token_s(client: Client, text: str, system: str = "") -> float:
    began = time.perf_counter()
    async with aclosing(cast(Any, client.stream(text, max_tokens=2, system=system))) as counts:
        async for _ in counts:
            return time.perf_counter() - began
    raise RuntimeError("no token came")


async def late_first_token_s(client: Client, at_once: int, salt: str) -> float:
    """Median over five requests that arrive, one after another, while `at_once` others run."""
    async with running(client, at_once, salt):
        return median([await first_token_s(client, LATE.format(f"{salt}{number}")) for number in range(5)])


@asynccontextmanager
async def running(client: Client, at_once: int, salt: str) -> AsyncIterator[None]:
    """`at_once` answers that have all begun, each asked for again when it ends; cancelled on leaving."""
    begun = asyncio.Semaphore(0)

    async def one(number: int) -> None:
        prompt = f"Count from {salt}{number}1 to {salt}{number}999, one number in each line, all of them."
        while True:
            async with aclosing(cast(Any, client.stream(prompt, max_tokens=900))) as counts:
                async for _ in counts:
                    begun.release()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(at_once)]
        for _ in range(8 * at_once):
            await begun.acquire()
        yield
        for task in tasks:
            task.cancel()


async def measure(client: Client, at_once: int, tokens: int, salt: str) -> Figures:
    await first_token_s(client, "Warm up.")
    lags: list[float] = []
    ticker = asyncio.create_task(_tick(lags))
    per_s, per_cpu_s = await throughput(client, at_once, tokens, salt)
    ticker.cancel()
    late = await late_first_token_s(client, at_once, salt)
    return Figures(
        tokens_per_s=per_s,
        tokens_per_cpu_s=per_cpu_s,
        late_first_token_s=late,
        lag_p99_s=sorted(lags)[int(0.99 * (len(lags) - 1))],
    )


async def _tick(lags: list[float]) -> None:
    """How much later than asked for the event loop wakes up, every 2 ms."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.002)
        lags.append(time.perf_counter() - began - 0.002)


async def prefix_s(client: Client) -> tuple[float, float]:
    """Time to first token after a system prompt of 200 tokens: first time, and median of five repeats."""
    await first_token_s(client, "Warm up.")
    first = await first_token_s(client, "Where does rain come from?", SYSTEM)
    again = [
        await first_token_s(client, f"Where does {subject} come from?", SYSTEM) for subject in SUBJECTS[:5]
    ]
    return first, median(again)


async def run_onnx(options: argparse.Namespace) -> dict[str, Any]:
    """What the child process does."""
    kept = 256 << 20 if options.prefix else 0
    settings = OnnxSettings(threads=2, slots=options.slots, prefix_cache_bytes=kept)
    backend = OnnxBackend([smollm2_folder()], settings)
    await backend.start()
    try:
        if options.child == "prefix":
            return {"times": await prefix_s(Onnx(backend))}
        return asdict(await measure(Onnx(backend), options.at_once[0], options.tokens, options.salt))
    finally:
        await backend.close()


def child(options: argparse.Namespace, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.onnx_vs_llamacpp", "--slots", str(options.slots)]
    done = subprocess.run([*command, *more], stdout=subprocess.PIPE, check=True, timeout=600)
    return cast(dict[str, Any], json.loads(done.stdout))


async def run_llama(gguf: Path, slots: int, job: Callable[[Client], Any], context_tokens: int = 2048) -> Any:
    with serve_llamacpp(gguf, slots=slots, context_tokens=context_tokens, threads=2) as server:
        timeout = aiohttp.ClientTimeout(total=600, sock_read=60)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=0, force_close=True)
        ) as http:
            return await job(Llama(server, http))


def rounds(options: argparse.Namespace, gguf: Path) -> Iterator[str]:
    """The lines of the table, as they are measured."""
    titles = ("tokens/s", "per CPU-s", "late first token", "loop lag p99")
    yield f"{'at once':>7} {'engine':<10} {titles[0]:>9} {titles[1]:>9} {titles[2]:>17} {titles[3]:>13}"
    for at_once in options.at_once:
        ours, theirs = [], []
        for run in range(options.runs):
            salt = str(run + 1)
            more = ["--child", "load", "--at-once", str(at_once), "--tokens", str(options.tokens)]
            ours.append(Figures(**child(options, *more, "--salt", salt)))

            async def job(client: Client, n: int = at_once, salt: str = salt) -> Figures:
                return await measure(client, n, options.tokens, salt)

            theirs.append(asyncio.run(run_llama(gguf, options.slots, job)))
        for name, runs in (("onnx", ours), ("llama.cpp", theirs)):
            lag = f"{1e3 * median(each.lag_p99_s for each in runs):10.1f} ms" if name == "onnx" else ""
            yield (
                f"{at_once:>7} {name:<10} {median(each.tokens_per_s for each in runs):9.0f} "
                f"{median(each.tokens_per_cpu_s for each in runs):9.0f} "
                f"{1e3 * median(each.late_first_token_s for each in runs):14.0f} ms {lag:>13}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--slots", type=int, default=17)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--child", choices=["load", "prefix"], help=argparse.SUPPRESS)
    parser.add_argument("--salt", default="1", help=argparse.SUPPRESS)
    parser.add_argument("--no-prefix", dest="prefix", action="store_false", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(asyncio.run(run_onnx(options))))
        return
    gguf = smollm2_gguf()
    for line in rounds(options, gguf):
        print(line, flush=True)
    print("\ntime to first token after a system prompt of 200 tokens: first time, then repeated")
    for name, more in (("onnx", []), ("onnx, no reuse", ["--no-prefix"])):
        first, again = child(options, "--child", "prefix", *more)["times"]
        print(f"{name:<15} {1e3 * first:6.0f} ms {1e3 * again:6.0f} ms", flush=True)
    first, again = asyncio.run(run_llama(gguf, options.slots, prefix_s))
    print(f"{'llama.cpp':<15} {1e3 * first:6.0f} ms {1e3 * again:6.0f} ms")


if __name__ == "__main__":
    main()
