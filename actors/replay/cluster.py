"""A private cluster for a replay: on loopback, with a node for each recorded model, and removed
afterwards."""

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
    """The connection to the cluster, and the backends of its nodes by model."""

    bus: Bus
    backends: Mapping[str, ReplayBackend]

    def is_writing(self, question: str) -> bool:
        """Whether a member is still writing an answer to the question."""
        return any(backend.running[question] for backend in self.backends.values())

    def written(self, question: str) -> dict[str, int]:
        """Return the tokens that each member has written for the question."""
        return {
            model: written
            for model, backend in self.backends.items()
            if (written := backend.written[question, model])
        }


@asynccontextmanager
async def start_replay_cluster(
    settings: Settings, recorded: RecordedSet, spec: ReplaySpec, data: Path, embedder: Embedder | None
) -> AsyncIterator[ReplayCluster]:
    """Start the cluster. The `settings` of agents, the dispatcher and patterns apply; those that would join
    another cluster do not."""
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
    """Return a data folder that is removed when the block ends. A folder at `place` stays if an error ends
    the block after something `is_begun`, because it holds what the cluster has learnt, for --resume."""
    if place is None:
        with tempfile.TemporaryDirectory(prefix="orchestra-replay-") as folder:
            yield Path(folder)
        return
    place.mkdir(parents=True, exist_ok=True)
    is_failed = True
    try:
        yield place
        is_failed = False
    finally:
        if not (is_failed and is_begun()):
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
