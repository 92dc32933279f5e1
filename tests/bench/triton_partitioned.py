"""A chat model in two stages against the whole one, both in Triton on torch: speed, and equal tokens.

`python -m tests.bench triton_partitioned` serves both from one tritonserver. First 20 prompts, four at once,
answered greedily by each: every text must be the same. Then streams of 24 tokens, 1, 4 and 16 at once, in
rounds that take turns: tokens a second, and the time between two tokens of a stream as its client sees it.
Told are the median round of each, and the median of what a round of one was to the other's next to it: so
the work of others on the machine counts for little. It takes 2 minutes. Both homes compute on the same two
threads; what the stages add is the way of the states between processes, which an ensemble of Triton takes
once a step.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc.aio import InferenceServerClient

from actors.triton.repository import write_repository
from actors.triton.repository_plan import ModelSpec
from tests.actors.triton.llm import ask, inputs, responses, write_llm
from tests.fixtures.models import smollm2_folder
from tests.fixtures.triton import RunningTriton, start_triton

PARTITIONED, WHOLE = "smollm2-135m", "whole"
STAGES = 2
AT_ONCE = (1, 4, 16)
ROUNDS = 5
TOKENS = 24
SUBJECTS = [
    *("bees", "rain", "tea", "iron", "the sea", "a clock", "chess", "bread", "the moon", "glass"),
    *("snow", "a bridge", "salt", "trees", "music", "wolves", "paper", "gold", "a river", "sleep"),
]


@dataclass(frozen=True, slots=True)
class Round:
    """What one round gave: tokens a second, and the median seconds between two tokens of a stream."""

    rate: float
    token_s: float


def served(root: Path) -> RunningTriton:
    server = start_triton(root)
    folder = smollm2_folder()
    write_repository(
        server.repository, folder.parent, [PARTITIONED], ModelSpec(partitions=STAGES), force=True
    )
    write_llm(server.repository, WHOLE, folder, runtime="torch")
    for name in (f"{PARTITIONED}-pipeline", PARTITIONED, WHOLE):
        server.load(name)
    return server


async def texts(client: InferenceServerClient, model: str) -> list[str]:
    """The answers to all prompts, four at once."""
    gate = asyncio.Semaphore(4)

    async def one(subject: str) -> str:
        async with gate:
            told = await ask(client, model, f"Tell me about {subject}.", max_tokens=TOKENS)
            assert not told.error, told.error
            return told.text

    return await asyncio.gather(*(one(subject) for subject in SUBJECTS))


async def stream(client: InferenceServerClient, model: str, subject: str) -> tuple[int, list[float]]:
    """The tokens of one stream, and the times between them."""
    tokens, last, between = 0, None, []
    question = inputs(f"Tell me a story about {subject}.", max_tokens=TOKENS)
    async for result, error in responses(client, model, question):
        assert error is None, error
        if count := int(result.as_numpy("token_count")[0]):
            now = time.perf_counter()
            tokens += count
            if last is not None:
                between.append((now - last) / count)
            last = now
    return tokens, between


async def round_of(client: InferenceServerClient, model: str, at_once: int) -> Round:
    began = time.perf_counter()
    found = await asyncio.gather(*(stream(client, model, subject) for subject in SUBJECTS[:at_once]))
    tokens = sum(count for count, _ in found)
    token_s = statistics.median(each for _, between in found for each in between)
    return Round(tokens / (time.perf_counter() - began), token_s)


def tell(at_once: int, whole: list[Round], cut: list[Round]) -> None:
    median = statistics.median
    pairs = list(zip(whole, cut, strict=True))
    print(
        f"{at_once:3} at once: whole {median(each.rate for each in whole):5.0f} tokens/s, "
        f"{median(each.token_s for each in whole) * 1e3:4.0f} ms a token; "
        f"{STAGES} stages {median(each.rate for each in cut):5.0f} tokens/s "
        f"({median(b.rate / a.rate for a, b in pairs) - 1:+.0%}), "
        f"{median(each.token_s for each in cut) * 1e3:4.0f} ms a token "
        f"({median(b.token_s / a.token_s for a, b in pairs) - 1:+.0%})",
        flush=True,
    )


async def compare(server: RunningTriton) -> int:
    """Tell the figures; the number of prompts whose texts differ."""
    async with InferenceServerClient(server.address) as client:
        whole, partitioned = await texts(client, WHOLE), await texts(client, PARTITIONED)
        same = sum(a == b for a, b in zip(whole, partitioned, strict=True))
        print(f"the same {TOKENS} tokens on {same} of {len(SUBJECTS)} prompts", flush=True)
        for at_once in AT_ONCE:
            rounds: dict[str, list[Round]] = {WHOLE: [], PARTITIONED: []}
            for _ in range(ROUNDS):
                for model, found in rounds.items():
                    found.append(await round_of(client, model, at_once))
            tell(at_once, rounds[WHOLE], rounds[PARTITIONED])
    return len(SUBJECTS) - same


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        server = served(Path(folder))
        try:
            return min(1, asyncio.run(compare(server)))
        finally:
            server.stop()


if __name__ == "__main__":
    raise SystemExit(main())
