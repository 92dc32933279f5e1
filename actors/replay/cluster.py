"""A cluster for a replay alone: on loopback, with a node for each recorded model, and gone afterwards."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from actors.backends.recorded import QuestionIndex
from actors.backends.replay import ReplayBackend, ReplaySettings
from actors.bus.bus import Bus
from actors.bus.settings import BusSettings
from actors.embedding.embedder import Embedder
from actors.gateway.settings import GatewaySettings
from actors.jobs.settings import JobsSettings
from actors.launch.process import connected
from actors.launch.up import run_up
from actors.nats_server import NatsServerSettings
from actors.node.settings import NodeSettings
from actors.replay.spec import RecordedSet, ReplaySpec
from actors.settings import Settings

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ReplayCluster:
    """A connection to it, and the backends of its nodes by model."""

    bus: Bus
    backends: Mapping[str, ReplayBackend]

    def is_writing(self, question: str) -> bool:
        """Whether a member still gives out an answer to it."""
        return any(backend.running[question] for backend in self.backends.values())

    def written(self, question: str) -> dict[str, int]:
        """The tokens that each member has given out for it."""
        return {
            model: written
            for model, backend in self.backends.items()
            if (written := backend.written[question, model])
        }


@asynccontextmanager
async def start_replay_cluster(
    settings: Settings, recorded: RecordedSet, spec: ReplaySpec, data: Path, embedder: Embedder | None
) -> AsyncIterator[ReplayCluster]:
    """Of `settings` those of agents, the dispatcher and patterns hold; what would join others does not."""
    questions = QuestionIndex(recorded.records)
    backends = {
        model: ReplayBackend(
            ReplaySettings(
                records=recorded.file, models=(model,), speed=spec.speed, chunk_tokens=spec.chunk_tokens
            ),
            questions,
        )
        for model in recorded.models
    }
    nodes = {f"replay-{number}": backend for number, backend in enumerate(backends.values(), 1)}
    private = _private(settings, spec, data)
    async with run_up(private, (), embedder, backends=nodes) as running:
        async with connected(private, running.nats_url, "orchestra-eval") as bus:
            yield ReplayCluster(bus, backends)


@contextmanager
def data_folder(place: Path | None, is_begun: Callable[[], bool]) -> Iterator[Path]:
    """A folder that is gone once the block ends. One at a `place` stays where an error ends the block after
    something `is_begun`: what a cluster has learnt lies there, so that it goes on with that."""
    if place is None:
        with tempfile.TemporaryDirectory(prefix="orchestra-replay-") as folder:
            yield Path(folder)
        return
    place.mkdir(parents=True, exist_ok=True)
    is_kept = True
    try:
        yield place
        is_kept = False
    finally:
        if not (is_kept and is_begun()):
            shutil.rmtree(place, ignore_errors=True)


def _private(settings: Settings, spec: ReplaySpec, data: Path) -> Settings:
    auto = settings.agents.auto.model_copy(update={"learn": spec.learn})
    return settings.model_copy(
        update={
            "data": data,
            "nats": BusSettings(),
            "nats_server": NatsServerSettings(host=LOOPBACK, port=_free_port()),
            "gateway": GatewaySettings(http=f"{LOOPBACK}:0"),
            "jobs": JobsSettings(),
            "node": NodeSettings(),
            "agents": settings.agents.model_copy(update={"auto": auto}),
        }
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
