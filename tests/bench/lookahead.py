"""One answer at a time with and without lookahead, on tasks that repeat their prompt and one that does not.

    python -m tests.bench.lookahead [--runs 3] [--only "Orchestra (ONNX)"]

The two engines take turns in this process. Prints a Markdown table: calls of the model for each token with
lookahead, and how many times the tokens per second and per CPU-second (in brackets) of without. An answer
that is not the same is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil

from actors.engine.backend import EngineBackend
from actors.engine.onnx_backend import OnnxBackend
from actors.engine.settings import OnnxSettings
from actors.installation.optional_imports import is_installed
from orchestration.messages import ChatGeneration, ChatMessage, Finish, Sampling, TextDelta
from tests.bench.engines import OPTIONS
from tests.fixtures.models import smollm2_folder

PEOPLE = """Name: Maria Schneider, age 34, city Hamburg, email maria.schneider@example.org, role manager.
Name: John O'Connor, age 52, city Dublin, email john.oconnor@example.com, role accountant.
Name: Aiko Tanaka, age 27, city Osaka, email aiko.tanaka@example.net, role software engineer."""
EVENTS = """The annual harvest festival takes place on 14 September 2026 in the old market square of Freiburg.
The winter concert of the city orchestra is on 12 December 2026 in the Saint Martin church."""
CODE = """class Stack:
    def __init__(self):
        self.values = []

    def push(self, value):
        self.values.append(value)

    def pop(self):
        return self.values.pop()
"""
REPORT = """Dear team, on Monday morning between 08:10 and 09:25 our booking service was not available. A
certificate of the database proxy had expired during the night. The monitoring had warned about it two weeks
before, but the warning went to a mailbox that nobody reads since the reorganisation in March. Anna renewed
the certificate by hand at 09:10 and restarted the proxies one after another. About 1,400 customers saw an
error page, and 212 bookings were lost; the support team calls these customers back this week."""
TASKS = {
    "people as JSON": f"Extract the people as JSON with name, age, city, email and role.\n\n{PEOPLE}",
    "events as JSON": f"Extract the events as JSON with the keys title, date, place.\n\n{EVENTS}",
    "code edit": f"Add a method `peek` to this class. Give me the whole class:\n\n```python\n{CODE}```",
    "summary": f"Summarise the following text in a few sentences.\n\n{REPORT}",
    "story": "Write a short story about a lighthouse keeper.",
}

Maker = Callable[[bool], EngineBackend]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One answer; times without the prompt's."""

    text: str
    tokens: int
    calls: int
    """Calls of the model."""
    taken_s: float
    cpu_s: float


def onnx(lookahead: bool) -> EngineBackend:
    return OnnxBackend([smollm2_folder()], OnnxSettings(**_options(lookahead)))


def openvino(lookahead: bool) -> EngineBackend:
    from actors.engine.openvino_backend import OpenVinoBackend
    from actors.engine.settings import OpenVinoSettings

    return OpenVinoBackend([smollm2_folder()], OpenVinoSettings(**_options(lookahead)))


def _options(lookahead: bool) -> dict[str, Any]:
    return OPTIONS | {"slots": 2, "lookahead": lookahead}


MAKERS: dict[str, Maker] = {"Orchestra (ONNX)": onnx}
if is_installed("openvino"):
    MAKERS["Orchestra (OpenVINO)"] = openvino


async def answered(backend: EngineBackend, text: str) -> Measured:
    """One greedy answer."""
    generation = ChatGeneration(
        id="bench.0",
        model="smollm2-135m",
        messages=(ChatMessage(role="user", content=text),),
        sampling=Sampling(temperature=0, max_tokens=160),
    )
    calls, process = backend.stats[0].steps, psutil.Process()
    pieces: list[str] = []
    tokens, began, cpu = 0, 0.0, 0.0
    async for item in backend.generate(generation):
        if isinstance(item, TextDelta):
            if not pieces:
                began, cpu = time.perf_counter(), sum(process.cpu_times()[:2])
            pieces.append(item.text)
        elif isinstance(item, Finish):
            tokens = item.usage.completion_tokens
    taken, used = time.perf_counter() - began, sum(process.cpu_times()[:2]) - cpu
    return Measured(
        text="".join(pieces),
        tokens=tokens,
        calls=backend.stats[0].steps - calls,
        taken_s=taken,
        cpu_s=used,
    )


async def row(name: str, runs: int) -> str:
    """The line of one engine."""
    ahead, plain = (MAKERS[name](lookahead) for lookahead in (True, False))
    await ahead.start()
    await plain.start()
    cells = []
    for task, text in TASKS.items():
        pairs = [(await answered(ahead, text), await answered(plain, text)) for _ in range(runs)]
        first, other = pairs[0]
        if first.text != other.text:
            raise RuntimeError(f"{name}: the answer of {task!r} is another with lookahead")
        faster = median(without.taken_s / ours.taken_s for ours, without in pairs)
        cheaper = median(without.cpu_s / ours.cpu_s for ours, without in pairs)
        cells.append(f"{first.calls / first.tokens:.2f}: {faster:.2f} ({cheaper:.2f})")
    await ahead.close()
    await plain.close()
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=MAKERS, action="append", help="Repeat for more.")
    options = parser.parse_args()
    print("| calls for each token: gain | " + " | ".join(TASKS) + " |")
    print("|---" * (len(TASKS) + 1) + "|")
    for name in options.only or MAKERS:
        print(asyncio.run(row(name, options.runs)), flush=True)


if __name__ == "__main__":
    main()
