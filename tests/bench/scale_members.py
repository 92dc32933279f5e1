"""Members of a large cluster for `tests.bench.scale`: one process of one kind, told what to do on its input.

    python -m tests.bench.scale_members gateway --nats URL --data DIR
    python -m tests.bench.scale_members fleet --nats URL --data DIR --first 0 --count 250 --models 500

A gateway and a dispatcher print `seen NODE joined|left NANOSECONDS` for nodes whose id begins with `probe-`,
and `nodes COUNT` on `count`. A fleet holds the entries of many nodes that run nothing; `probe-N` on its input
adds one more. All end with their input.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from actors.bus.bus import Bus
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply_when_ready
from actors.cluster.node_registration import NodeRegistration
from actors.cluster.registry import Registry
from actors.dispatcher.process import run_dispatcher
from actors.gateway.process import run_gateway
from actors.launch.process import connected, freeze_garbage_collector, run
from actors.runtime.system import ActorSystem
from actors.settings import Settings
from orchestration.messages import Hardware, MemoryUse, ModelCard, ModelRates, NodeInfo

CARDS = 2
"""Models of each node."""
PROBE = "probe-"


def say(*words: object) -> None:
    print(*words, flush=True)


def node_info(node_id: str, first: int, models: int) -> NodeInfo:
    """An entry as long as that of a node with a few models and measured rates."""
    names = [f"vendor/model-{(first + number) % models}" for number in range(CARDS)]
    return NodeInfo(
        id=node_id,
        backend="onnx",
        models=tuple(
            ModelCard(name=name, context_tokens=8192, parameters=134_515_008, memory_bytes=114_000_000)
            for name in names
        ),
        hardware=Hardware(cores=16, memory_bytes=64 << 30, provider="CPUExecutionProvider"),
        labels={"zone": "a", "rack": str(first % 40)},
        rates={
            name: ModelRates(samples=100, first_s=0.08, prompt_token_s=1e-3, token_s=0.01) for name in names
        },
        memory=MemoryUse(limit_bytes=32 << 30, loads=2, hits=100),
        slots=8,
        started_at=time.time(),
    )


class Fleet:
    """Registrations of many nodes."""

    def __init__(self, bus: Bus, models: int) -> None:
        self.bus = bus
        self.models = models
        self.registrations: list[NodeRegistration] = []

    async def add(self, node_id: str, first: int) -> None:
        info = node_info(node_id, first, self.models)
        registration = NodeRegistration(self.bus, node_id, lambda: info, lambda: None)
        await registration.join()
        self.registrations.append(registration)


@asynccontextmanager
async def member(kind: str, bus: Bus, settings: Settings) -> AsyncIterator[Registry]:
    """Run a gateway or a dispatcher; its registry."""
    system = ActorSystem()
    if kind == "dispatcher":
        registry = Registry(bus)
        async with run_dispatcher(bus, settings.dispatcher, system, registry):
            yield registry
    else:
        gateway_settings = settings.gateway.model_copy(update={"http": "127.0.0.1:0"})
        async with run_gateway(bus, gateway_settings, system) as running:
            say("http", running.url)
            yield running.gateway.registry


def report_probes(registry: Registry) -> None:
    """Print when probes join and leave."""

    def on_node(node: str, info: NodeInfo | None) -> None:
        now = time.monotonic_ns()
        known = node in seen
        if node.startswith(PROBE) and known != (info is not None):
            say("seen", node, "left" if info is None else "joined", now)
            (seen.discard if info is None else seen.add)(node)

    seen: set[str] = set()
    registry.on_node.append(on_node)


async def serve(options: argparse.Namespace) -> None:
    settings = Settings(data=options.data)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connected(settings, options.nats, f"scale-{options.kind}"))
        await apply_when_ready(bus, shipped_declaration())
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
        )
        if options.kind == "fleet":
            fleet = Fleet(bus, options.models)
            for number in range(options.first, options.first + options.count):
                await fleet.add(f"node-{number}", number)
        else:
            registry = await stack.enter_async_context(member(options.kind, bus, settings))
            report_probes(registry)
        freeze_garbage_collector()
        say("ready")
        while line := (await lines.readline()).decode().strip():
            if line == "count":
                say("nodes", len(registry.nodes))
            else:
                await fleet.add(line, 0)
                say("added", line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["gateway", "dispatcher", "fleet"])
    parser.add_argument("--nats", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--models", type=int, default=500)
    logging.disable(logging.WARNING)  # each node that a fleet leaves behind is one for every process
    run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
