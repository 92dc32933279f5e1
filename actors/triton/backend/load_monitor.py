"""How busy a Triton server is, with everyone's requests, and what it runs on: read from its metrics."""

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
"""Triton's own queues. A model that hands its requests to a loop of its own has none there, but these: ours,
and vLLM's."""
AT_WORK = (
    "orchestra_llm_running",
    "orchestra_llm_waiting",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
)
GPU = "nv_gpu_memory_total_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLoad:
    """Requests that wait in Triton's queues or are at work in models' loops, by model; and the GPUs' ids."""

    requests: dict[str, int] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()

    def of(self, models: Collection[str]) -> int:
        return sum(count for name, count in self.requests.items() if name in models)


def parse_metrics(text: str) -> ServerLoad:
    """Raises ValueError for what is no text of Prometheus."""
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
    """The last reading, renewed every `watch_s` seconds; empty where the metrics cannot be had."""

    def __init__(self, settings: TritonSettings) -> None:
        self.last = ServerLoad()
        self._settings = settings
        self._silent = False
        self._reading: asyncio.Task[None] | None = None
        self._session: ClientSession | None = None

    async def start(self) -> None:
        """Read once, and go on until `stop`."""
        # A connection that is kept open would hold up the server's end for as long as it may take.
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
                log.warning("no load is read from %s: %s", self._settings.metrics, error or "it is silent")
