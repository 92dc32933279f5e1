"""Reads the load and the GPUs of a Triton server from its metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector
from prometheus_client.parser import text_string_to_metric_families

from actors.triton.backend.settings import TritonSettings

log = logging.getLogger(__name__)

WAITING = "nv_inference_pending_request_count"
"""Triton's own queues. Models with their own loop (Orchestra's, vLLM's) have the metrics below instead."""
AT_WORK = (
    "orchestra_llm_running",
    "orchestra_llm_waiting",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
)
GPU = "nv_gpu_memory_total_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLoad:
    """The load of a Triton server, in its queues and in the loops of its models."""

    requests: dict[str, int] = field(default_factory=dict)
    """Requests that wait or run, by model."""
    gpus: tuple[str, ...] = ()
    """Ids of the GPUs."""

    def of(self, models: Collection[str]) -> int:
        return sum(count for name, count in self.requests.items() if name in models)


def parse_metrics(text: str) -> ServerLoad:
    """Parse Prometheus text. Raises ValueError if invalid."""
    requests: dict[str, int] = {}
    gpus: list[str] = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == WAITING or sample.name in AT_WORK:
                name = sample.labels.get("model") or sample.labels.get("model_name", "")
                requests[name] = requests.get(name, 0) + int(sample.value)
            elif sample.name == GPU:
                gpus.append(sample.labels.get("gpu_uuid", "GPU"))
    return ServerLoad(requests=requests, gpus=tuple(gpus))


class LoadMonitor:
    """Keeps the last reading, updated every `watch_s` seconds; empty if the metrics are unavailable."""

    def __init__(self, settings: TritonSettings) -> None:
        self.last = ServerLoad()
        self._settings = settings
        self._silent = False
        self._reading: asyncio.Task[None] | None = None
        self._session: ClientSession | None = None

    async def start(self) -> None:
        """Read once, then periodically until `stop`."""
        # A persistent connection would delay the server's exit.
        self._session = ClientSession(
            connector=TCPConnector(force_close=True),
            timeout=ClientTimeout(total=self._settings.connect_timeout_s),
        )
        await self._read(self._session)
        self._reading = asyncio.create_task(self._go_on(self._session), name="triton load")

    async def stop(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait({reading})
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _go_on(self, session: ClientSession) -> None:
        while True:
            await asyncio.sleep(self._settings.watch_s)
            await self._read(session)

    async def _read(self, session: ClientSession) -> None:
        try:
            async with session.get(self._settings.metrics) as answer:
                answer.raise_for_status()
                self.last = parse_metrics(await answer.text())
            self._silent = False
        except (ClientError, TimeoutError, ValueError) as error:
            self.last = ServerLoad(gpus=self.last.gpus)
            if not self._silent:
                self._silent = True
                log.warning("cannot read the load from %s: %s", self._settings.metrics, error or "no answer")
