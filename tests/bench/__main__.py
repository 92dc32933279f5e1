"""`make bench`: every figure, each against a peer or a limit in the same run.

`make bench ARGS="startup path"` runs some of them; without names all run, about 40 minutes on two cores.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

FIGURES = {
    "actors": "1,000 actors in one process: memory, start time, messages a second",
    "startup": "warm start to ready, resident memory with and without a model",
    "memory": "memory of `orchestra up`: idle, after first answers, in a storm, and 30 s after it",
    "clone": "clean clone to the first streamed token, nothing cached",
    "onnx_vs_llamacpp": "the ONNX node against llama.cpp on the same GGUF at 1, 8 and 16 at once",
    "processors": "the error of products on this and on emulated processors (needs qemu-user)",
    "engines": "tokens a second of engines on the same GGUF at 1 to 32 at once",
    "lookahead": "one answer at a time with and without lookahead: JSON, code edit, summary, story",
    "triton_llm": "the chat model in Triton, by torch and onnxruntime: batched against one at a time",
    "triton_partitioned": "the chat model in Triton in two stages against the whole: speed, and equal tokens",
    "triton_embedding": "the embedding ensemble in Triton with dynamic batching against none, to 32 at once",
    "triton_batching": "a mixed load on embeddings in Triton: batching by fixed waits and by one that moves",
    "openai_backend": "CPU of the openai backend for each generation",
    "added_latency": "what the whole path adds to the first token and to each chunk",
    "placement": "a placement decision among 100 to 10,000 replicas, and p99 against simpler policies",
    "placement_nodes": "p50 and p99 against simpler policies on four real nodes of different speed",
    "overtaking": "how soon another caller queues behind what waits",
    "scale": "1,000 nodes and 500 models on one NATS server: CPU and messages at rest, joins, deaths",
    "path": "the path without HTTP, with echo: requests a second and time by part",
    "durable_runs": "runs with recorded steps and events against runs without: CPU, p50, messages",
    "analysis": "the analysis of a query: accuracy against keywords, time against its limit and MiniLM",
    "cache": "a kept answer against one that has to be made: requests a second and p99",
    "failover": "a killed node: time until its stream goes on; a client that leaves: time until the stop",
    "left_callers": "200 to 5,000 callers that leave: how long the next one waits",
    "grouping": "two to four models on a node that holds one: swaps and time, by turns and as they arrive",
    "warming": "time to the first token from a cold and from a warmed model, and the share of cold starts",
    "hedging": "time to the first token with a second node for late ones and without, and what it adds",
    "keep_alive": "1,000 generations at work kept from redelivery: CPU of the dispatcher and of nats-server",
    "ensemble": "three voices against their slowest: wall time; and the tokens that the quorum saves",
    "first_token": "time to the first token and to the end of each pattern on the real model",
    "decompose": "eight subtasks against their critical path; that first against what is ready first",
    "jobs": "10,000 jobs at once: accepted and ended a second, memory of each process over time",
    "telemetry": "requests with log, metrics and traces against none of them, echo and a real model",
    "settings": "time until three gateways follow a change of settings, at rest and while they serve",
    "logs": "the log: cost of an event, rates to NATS and MongoDB, first pages over a million events",
    "knowledge": "10,000 passages added and searched: rate, p99, and recall against an exact search",
    "peers": "gateways before the same upstream, and engines on the same GGUF (needs wrk; npm for Portkey)",
}


def main() -> int:
    """Run the figures named on the command line, or all; 1 if any of them failed."""
    names = sys.argv[1:] or list(FIGURES)
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        print(f"no figure {unknown[0]!r}; there are:", file=sys.stderr)
        for name, about in FIGURES.items():
            print(f"  {name:22}{about}", file=sys.stderr)
        return 2
    failed = 0
    for name in names:
        module = f"tests.bench.{name}"
        assert importlib.util.find_spec(module), f"{module} is not there"
        print(f"\n== {name}: {FIGURES[name]}", flush=True)
        failed += subprocess.run([sys.executable, "-m", module], check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
