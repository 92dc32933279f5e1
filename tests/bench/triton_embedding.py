"""Text embeddings through Triton's ensemble, with dynamic batching and without.

`python -m tests.bench triton_embedding` writes the repository twice, the second time with `dynamic_batching`
taken out of all steps, serves both, and sends texts, one a request, from 1, 8 and 32 clients: queries,
where a call alone mostly waits for weights to come from memory, and sentences, where it mostly computes.
Rounds take turns between the two servers; the median of each is told, with the CPU that the server and its
models took for a text, which other load on the machine changes little, and at the end the sizes of the
encoder's batches.

What can be won differs: products of matrices run at a core's peak (95 of 96 GFLOP/s, AVX2) from about 8
texts on, and at half of it alone. An encoder's call takes 4.9 ms of processor time for a query alone and 2.5
among 32, but 7.8 and 5.0 for a sentence, most of which is arithmetic that no batch saves: with sentences
twice the rate is out of reach of float32 on such a core.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import psutil
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from actors.triton.repository import write_repository
from actors.triton.repository_plan import ModelSpec
from tests.fixtures.models import minilm_folder
from tests.fixtures.triton import RunningTriton, start_triton

MODEL = "all-minilm-l6-v2"
CLIENTS = (1, 8, 32)
ROUNDS = 3
ROUND_S = 2.0

TEXTS = {
    "queries of 5 to 8 tokens": [
        "capital of France",
        "how to tie a tie",
        "cheap flights to Rome",
        "what is a quark?",
    ],
    "sentences of 11 to 20 tokens": [
        "How do I renew a passport that has expired?",
        "The committee will meet again on Thursday to discuss the budget for the coming year in more detail.",
        "A quick guide to growing tomatoes on a balcony that gets only a few hours of sun.",
        "Database connections time out after thirty seconds of silence.",
    ],
}


@dataclass(frozen=True, slots=True)
class Round:
    """Texts a second, and processor seconds of the server for each."""

    rate: float
    cpu_s: float


def served(root: Path, *, batching: bool) -> RunningTriton:
    server = start_triton(root)
    folder = minilm_folder()
    write_repository(server.repository, folder.parent, [MODEL], ModelSpec(), force=True)
    if not batching:
        for file in server.repository.glob("*/config.pbtxt"):
            file.write_text(re.sub(r"^dynamic_batching .*\n", "", file.read_text(), flags=re.M))
    server.load(MODEL)
    return server


async def embed(client: InferenceServerClient, text: str) -> None:
    tensor = InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[text.encode()]], object))
    await client.infer(MODEL, [tensor])


def cpu_s(server: RunningTriton) -> float:
    """Processor seconds that the server and its models have taken, those included that it has ended."""
    root = psutil.Process(server.process.pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(each.user + each.system + each.children_user + each.children_system for each in times)


async def round_of(client: InferenceServerClient, clients: int, texts: list[str]) -> int:
    """Texts embedded for so many clients, each of which asks again as soon as it has its answer."""
    until = time.perf_counter() + ROUND_S

    async def ask(first: int) -> int:
        done = 0
        while time.perf_counter() < until:
            await embed(client, texts[(first + done) % len(texts)])
            done += 1
        return done

    return sum(await asyncio.gather(*(ask(number) for number in range(clients))))


async def measured(
    server: RunningTriton, client: InferenceServerClient, clients: int, texts: list[str]
) -> Round:
    began, before = time.perf_counter(), cpu_s(server)
    done = await round_of(client, clients, texts)
    return Round(done / (time.perf_counter() - began), (cpu_s(server) - before) / done)


async def batch_sizes(client: InferenceServerClient) -> str:
    said = await client.get_inference_statistics(f"{MODEL}-encoder", as_json=True)
    stats = said["model_stats"][0]
    return f"{int(stats['inference_count']) / int(stats['execution_count']):.1f}"


async def compare(servers: dict[str, RunningTriton]) -> None:
    clients = {name: InferenceServerClient(server.address) for name, server in servers.items()}
    for (kind, texts), at_once in product(TEXTS.items(), CLIENTS):
        rounds: dict[str, list[Round]] = {name: [] for name in clients}
        for number in range(ROUNDS + 1):
            for name, client in clients.items():
                found = await measured(servers[name], client, at_once, texts)
                if number:  # the first is for warming up
                    rounds[name].append(found)
        rates = [statistics.median(each.rate for each in found) for found in rounds.values()]
        costs = [statistics.median(each.cpu_s for each in found) * 1e3 for found in rounds.values()]
        told = ", ".join(
            f"{name} {rate:4.0f}/s at {cost:4.1f} ms CPU"
            for name, rate, cost in zip(rounds, rates, costs, strict=True)
        )
        print(f"{kind}, {at_once:2} at once: {told}: {rates[0] / rates[1]:.2f} times", flush=True)
    for name, client in clients.items():
        print(f"{name}: {await batch_sizes(client)} texts in a call of the encoder")
        await client.close()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        servers: dict[str, RunningTriton] = {}
        try:
            for name, batching in (("dynamic batching", True), ("none", False)):
                servers[name] = served(Path(folder) / name.replace(" ", "-"), batching=batching)
            asyncio.run(compare(servers))
        finally:
            for server in servers.values():
                server.stop()


if __name__ == "__main__":
    main()
