"""Engines on the same GGUF with two threads each: tokens per second at 1, 8, 16 and 32 at once.

    python -m tests.bench.engines [--runs 3] [--at-once 1 8 16 32] [--tokens 96] [--only "Orchestra (ONNX)"]

Each measurement is a process of its own; the engines take turns. Prints a Markdown table of medians, tokens
per CPU-second of the engine's process in brackets, and its resident memory after the widest round. A further
backend is one more entry of `BACKENDS`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import median

import psutil

from actors.backends.base import Backend
from actors.node.backend_factory import onnx_backend, openvino_backend
from tests.bench.onnx_vs_llamacpp import Client, Onnx, first_token_s, run_llama, throughput
from tests.fixtures.llamacpp import smollm2_gguf
from tests.fixtures.models import smollm2_folder

Figures = tuple[float, float, float]
"""Tokens per second, tokens per CPU-second, MiB."""


OPTIONS = {"threads": 2, "slots": 32, "prefix_cache_bytes": 0}


def onnx() -> Backend:
    """Orchestra's own engine on ONNX Runtime."""
    return onnx_backend([smollm2_folder()], OPTIONS)


def openvino() -> Backend:
    """The same on OpenVINO, with exact products."""
    return openvino_backend([smollm2_folder()], OPTIONS)


def openvino_int8() -> Backend:
    """The same on OpenVINO, with activations rounded to 8 bits."""
    return openvino_backend([smollm2_folder()], OPTIONS | {"activations": "int8"})


LLAMA = "llama.cpp"
BACKENDS: dict[str, Callable[[], Backend]] = {"Orchestra (ONNX)": onnx}
if importlib.util.find_spec("openvino") is not None:  # an extra
    BACKENDS |= {"Orchestra (OpenVINO)": openvino, "Orchestra (OpenVINO, int8)": openvino_int8}
WIDTHS = (1, 8, 16, 32)


async def measure(client: Client, at_once: int, tokens: int, salt: str) -> Figures:
    """One warm round."""
    await first_token_s(client, "Warm up.")
    per_s, per_cpu_s = await throughput(client, at_once, tokens, salt)
    return per_s, per_cpu_s, psutil.Process(client.pid).memory_info().rss / 2**20


async def measure_backend(name: str, options: argparse.Namespace) -> Figures:
    """A round of one of `BACKENDS` in this process."""
    backend = BACKENDS[name]()
    await backend.start()
    try:
        return await measure(Onnx(backend), options.at_once[0], options.tokens, options.salt)
    finally:
        await backend.close()


async def measure_llama(options: argparse.Namespace) -> Figures:
    """A round of llama.cpp's server, asked over HTTP."""

    async def job(client: Client) -> Figures:
        return await measure(client, options.at_once[0], options.tokens, options.salt)

    figures: Figures = await run_llama(smollm2_gguf(), 32, job, context_tokens=512)
    return figures


def child(name: str, at_once: int, tokens: int, salt: str) -> Figures:
    """A round in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.engines", "--child", name, "--at-once", str(at_once)]
    command += ["--tokens", str(tokens), "--salt", salt]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=600)
    per_s, per_cpu_s, mib = json.loads(done.stdout)
    return per_s, per_cpu_s, mib


def table(names: Sequence[str], widths: Sequence[int], runs: int, tokens: int) -> list[str]:
    """Measure in turns; the lines of the table."""
    taken: dict[tuple[str, int], list[Figures]] = defaultdict(list)
    for run in range(runs):
        for at_once in widths:
            for name in names:
                taken[name, at_once].append(child(name, at_once, tokens, str(run + 1)))
    lines = [
        "| tokens/s (per CPU-second) | " + " | ".join(f"{width} at once" for width in widths) + " | MiB |",
        "|---" * (len(widths) + 2) + "|",
    ]
    for name in names:
        cells = []
        for at_once in widths:
            per_s, per_cpu_s, mib = (median(values) for values in zip(*taken[name, at_once], strict=True))
            cells.append(f"{per_s:.0f} ({per_cpu_s:.0f})")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {mib:.0f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--at-once", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--only", choices=[*BACKENDS, LLAMA], action="append", help="Repeat for more.")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--salt", default="1", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        job = measure_llama(options) if options.child == LLAMA else measure_backend(options.child, options)
        print(json.dumps(asyncio.run(job)))
        return
    names = options.only or [*BACKENDS, LLAMA]
    print("\n".join(table(names, options.at_once, options.runs, options.tokens)))


if __name__ == "__main__":
    main()
