"""Memory of `orchestra up`: idle, after first answers, at most in a storm, and half a minute after it.

`python -m tests.bench.memory --minutes 60` goes on with the storm's load at a lower rate and tells the slope.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np

from tests.bench.jobs import child_of
from tests.fixtures.models import minilm_folder, smollm2_folder
from tests.fixtures.process import orchestra

LIMIT_MB = 350.0
"""Of the model alone, idle and after first answers."""
LIMIT_BACK = 1.10
"""After the storm against after the first answers."""
STORM_S = 20.0
QUIET_S = 30.0
SETTLE_S = 3.0
SAMPLE_S = 0.25
PAUSE_S = 4.0
"""Between the requests of a caller of the long load."""
WARM_UP = 1 / 3
"""Of the long load, left out of the slope: caches fill."""

QUESTIONS = ("What is the capital of France?", "What is 12 + 30?", "Name a colour.", "Who wrote Hamlet?")
PATTERNS = ("self-consistency", "ensemble", "debate", "maestro", "decompose")
WORDS = re.findall(
    r"\w+",
    "river stone copper window garden paper winter market engine signal harbour theory butter mirror "
    "history candle forest number planet doctor island letter silver thunder village answer",
)

Call = Callable[[random.Random], Awaitable[None]]


@dataclass(slots=True)
class Watched:
    """The processes whose memory is read, in MB of 1e6 bytes."""

    up: int
    server: int
    most: float = 0.0
    samples: list[tuple[float, float]] = field(default_factory=list)
    """Seconds and resident MB of the long load."""

    def read(self, pid: int) -> dict[str, float]:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        found = re.findall(r"^(Rss|Pss|Anonymous):\s+(\d+) kB", text, re.MULTILINE)
        return {name: int(kib) * 1024 / 1e6 for name, kib in found}

    async def watch(self) -> None:
        """Keep the most that was resident, until cancelled."""
        began = time.monotonic()
        while True:
            resident = self.read(self.up)["Rss"]
            self.most = max(self.most, resident)
            self.samples.append((time.monotonic() - began, resident))
            await asyncio.sleep(SAMPLE_S)


@dataclass(frozen=True, slots=True)
class Caller:
    """Sends requests of the mixed load; one that is refused counts as one that was made."""

    http: aiohttp.ClientSession
    url: str

    async def post(self, path: str, body: dict[str, object]) -> dict[str, object]:
        async with self.http.post(f"{self.url}/v1/{path}", json=body) as response:
            answer: dict[str, object] = await response.json()
            return answer

    async def chat(self, model: str, text: str, max_tokens: int) -> dict[str, object]:
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
        return await self.post("chat/completions", body)

    async def long_prompt(self, chance: random.Random) -> None:
        await self.chat("smollm2-135m", prose(chance, chance.randint(300, 3_000)), 32)

    async def pattern(self, chance: random.Random) -> None:
        text = f"{chance.choice(QUESTIONS)} {prose(chance, 20)}"
        await self.chat(f"orchestra/{chance.choice(PATTERNS)}", text, 64)

    async def embeddings(self, chance: random.Random) -> None:
        longest = chance.choice((10, 100, 350))
        texts = [prose(chance, chance.randint(5, longest)) for _ in range(48)]
        await self.post("embeddings", {"model": "all-minilm-l6-v2", "input": texts})

    async def rate(self) -> float:
        """Tokens a second of one answer alone."""
        began = time.perf_counter()
        answer = await self.chat("smollm2-135m", f"Tell a long story. {time.time_ns()}", 96)
        usage = answer["usage"]
        assert isinstance(usage, dict)
        return float(usage["completion_tokens"]) / (time.perf_counter() - began)


def prose(chance: random.Random, words: int) -> str:
    """Text that no cache has seen."""
    return " ".join(chance.choices(WORDS, k=words))


async def load(calls: list[Call], seconds: float, pause_s: float) -> int:
    """Each of `calls` again and again for so long; returns how many requests were made."""
    until = time.monotonic() + seconds

    async def repeat(number: int, call: Call) -> int:
        chance, made = random.Random(number), 0
        while time.monotonic() < until:
            await call(chance)
            made += 1
            await asyncio.sleep(pause_s)
        return made

    return sum(await asyncio.gather(*(repeat(number, call) for number, call in enumerate(calls))))


@asynccontextmanager
async def started(embedder: bool) -> AsyncIterator[tuple[Watched, Caller]]:
    """`orchestra up` with the model alone, or beside it the embedder, for the agents and as a model."""
    folders = [smollm2_folder(), *([minilm_folder()] if embedder else [])]
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as data:
        (Path(data) / "models").mkdir()
        for folder in folders:
            (Path(data) / "models" / folder.name).symlink_to(folder)
        words = [word for folder in folders for word in ("--model", folder.name)]
        own = folders[1].name if embedder else ""
        up = orchestra("up", "--data", data, "--http", "127.0.0.1:0", *words, ORCHESTRA_AGENTS__EMBEDDER=own)
        with up as process:
            url = re.search(r"http://\S+", process.wait_for("Orchestra is ready"))
            assert url is not None
            timeout = aiohttp.ClientTimeout(total=300)
            async with aiohttp.ClientSession(timeout=timeout) as http:
                yield Watched(process.pid, child_of(process.pid)), Caller(http, url[0])


def row(name: str, watched: Watched, *, most: float | None = None) -> float:
    """Print one line of the table; returns the resident MB."""
    up, server = watched.read(watched.up), watched.read(watched.server)
    resident = up["Rss"] if most is None else most
    own = f"{up['Pss']:>10.0f}{up['Anonymous']:>12.0f}" if most is None else f"{'-':>10}{'-':>12}"
    print(f"  {name:28}{resident:>10.0f}{own}{server['Rss']:>14.0f}", flush=True)
    return resident


async def measure(embedder: bool, minutes: float) -> None:
    """Print the table of one `orchestra up`."""
    print(f"\n{'model and embedder' if embedder else 'model alone'}")
    print(f"  {'':28}{'RSS MB':>10}{'PSS MB':>10}{'anonymous':>12}{'nats-server':>14}")
    async with started(embedder) as (watched, caller):
        await asyncio.sleep(SETTLE_S)
        idle = row("idle", watched)
        for question in QUESTIONS:
            await caller.chat("smollm2-135m", question, 32)
        for pattern in ("ensemble", "debate"):  # what patterns need is loaded with the first of them
            await caller.chat(f"orchestra/{pattern}", QUESTIONS[0], 16)
        if embedder:
            await caller.post("embeddings", {"model": "all-minilm-l6-v2", "input": list(QUESTIONS)})
        await asyncio.sleep(QUIET_S)  # as after the storm, or the prefixes would count here alone
        first = row("after first answers", watched)
        before = max([await caller.rate() for _ in range(3)])
        calls: list[Call] = [*[caller.long_prompt] * 4, *[caller.pattern] * 2]
        calls += [caller.embeddings] * 2 if embedder else []
        watching = asyncio.create_task(watched.watch())
        made = await load(calls, STORM_S, 0.0)
        watching.cancel()
        row(f"most in a storm of {made}", watched, most=watched.most)
        await asyncio.sleep(QUIET_S)
        after = row(f"{QUIET_S:g} s after it", watched)
        again = max([await caller.rate() for _ in range(3)])
        print(f"  {after / first:.2f} of what it was after first answers, limit {LIMIT_BACK:g}")
        if not embedder:
            print(f"  {idle / LIMIT_MB:.2f} and {first / LIMIT_MB:.2f} of the limit of {LIMIT_MB:g} MB")
        print(f"  decode alone: {before:.0f} tokens/s before the storm, {again:.0f} after")
        if minutes:
            await slope(watched, calls, minutes)


async def slope(watched: Watched, calls: list[Call], minutes: float) -> None:
    """The mixed load for so long, and how memory moved meanwhile."""
    watched.samples.clear()
    watching = asyncio.create_task(watched.watch())
    made = await load(calls, minutes * 60, PAUSE_S)
    watching.cancel()
    times, resident = np.array(watched.samples).T
    late = times > times[-1] * WARM_UP
    per_hour = float(np.polyfit(times[late], resident[late], 1)[0]) * 3600
    print(
        f"  {minutes:g} minutes, {made} requests: {resident[late].min():.0f} to "
        f"{resident[late].max():.0f} MB, slope {per_hour:+.0f} MB an hour after the first third"
    )
    await asyncio.sleep(QUIET_S)
    row(f"{QUIET_S:g} s after it", watched)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="tests.bench.memory")
    parser.add_argument("--minutes", type=float, default=0.0, help="of mixed load after the storm")
    minutes = parser.parse_args().minutes
    for embedder in (False, True):
        asyncio.run(measure(embedder, minutes))


if __name__ == "__main__":
    main()
