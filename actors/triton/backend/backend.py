"""The Triton backend: chat and embedding models of one server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence

from actors.backends.base import Backend, Output, host_hardware
from actors.triton.backend.adaptive_batching import BatchingController
from actors.triton.backend.client import READY, TritonClient
from actors.triton.backend.health import ModelHealth
from actors.triton.backend.load_monitor import LoadMonitor
from actors.triton.backend.repository import load_model, set_batching, unload_model
from actors.triton.backend.responses import stream_text, stream_vectors
from actors.triton.backend.served_model import (
    ServedModel,
    UnservableModel,
    describe_loaded,
    describe_unloaded,
    installed_manifest,
)
from actors.triton.backend.settings import TritonSettings
from orchestration.errors import BackendFailed, InvalidRequest, Unavailable, UnknownModel
from orchestration.messages import Generation, Hardware, ModelCard
from orchestration.model_memory import Residency

log = logging.getLogger(__name__)


class TritonBackend(Backend):
    """Serves `settings.models`, or all models of the server's repository that it can serve.

    A loaded model is kept loaded: it is reloaded when its process or the server died, or when another client
    unloaded it.
    """

    name = "triton"

    def __init__(self, settings: TritonSettings | None = None) -> None:
        self._settings = settings or TritonSettings()
        self._server: TritonClient | None = None
        self._version = ""
        self._offered: dict[str, ServedModel] = {}
        self._loaded: dict[str, ModelHealth] = {}
        self._load = LoadMonitor(self._settings)
        self._tuning = BatchingController(self._settings, self._models_loaded, self.set_batching)

    def __repr__(self) -> str:
        return f"TritonBackend(url={self._settings.url!r}, models={sorted(self._offered)})"

    async def start(self, memory_bytes: int = 0) -> None:
        """Raises `Unavailable` naming the address where no server answers, `BackendFailed` for one that is of
        no use and for a model that cannot be loaded, `UnknownModel` for one that is not in its repository."""
        await self.close()
        self._server = server = TritonClient(self._settings)
        try:
            self._version = await server.version()
            index = await server.index()
            await self._discover(server, index)
            sizes = {name: model.card.memory_bytes for name, model in self._offered.items()}
            for name in Residency(memory_bytes, sizes).fitting():
                await self._try(name)
            if not self._offered:
                raise UnknownModel(f"{server.host} has no model that can be served; see the server's log")
            await self._load.start()
            self._tuning.start(server)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect. The server keeps its models: other clients may use them."""
        await self._tuning.stop()
        await self._load.stop()
        for health in self._loaded.values():
            await health.stop()
        self._loaded.clear()
        self._offered.clear()
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    async def _try(self, name: str) -> None:
        """Load a model at the start. Broken models of a whole repository are skipped."""
        try:
            await self.load(name)
        except BackendFailed as error:
            if self._settings.models:
                raise
            log.error("model %s is not served: %s", name, error)
            del self._offered[name]

    async def load(self, model: str) -> None:
        """Raises `BackendFailed` with Triton's message if it cannot load the model."""
        known, server = self._known(model), self._running()
        if model in self._loaded:
            return
        await load_model(server, known.upstream)
        self._offered[model] = read = await self._describe(server, model, known.upstream)
        self._loaded[model] = ModelHealth(server, self._settings, read)

    async def unload(self, model: str) -> None:
        """Returns once all requests of the model, also of other clients, have ended. Raises `Unavailable` if
        that takes longer than `unload_timeout_s`."""
        known, server = self._known(model), self._running()
        health = self._loaded.pop(model, None)
        if health is not None:
            await health.stop()
            await unload_model(server, known.upstream, self._settings.unload_timeout_s)

    async def set_batching(self, model: str, window_s: float, sizes: Sequence[int]) -> bool:
        """See `repository.set_batching`."""
        known = self._known(model)
        if model not in self._loaded:
            raise BackendFailed(f"model {model!r} is not loaded")
        return await set_batching(self._running(), known, window_s, sizes)

    def _models_loaded(self) -> list[ServedModel]:
        return [health.model for health in self._loaded.values()]

    @property
    def models(self) -> tuple[ModelCard, ...]:
        return tuple(model.card for model in self._offered.values())

    @property
    def loaded(self) -> frozenset[str]:
        return frozenset(self._loaded)

    @property
    def hardware(self) -> Hardware:
        """The server's GPUs; cores and memory of this machine, as the server reports none."""
        return host_hardware(f"triton {self._version} {self._settings.host}", self._load.last.gpus)

    @property
    def slots(self) -> int:
        return self._settings.slots

    @property
    def external_load(self) -> int:
        """Requests that its models run or queue for other clients."""
        own = sum(health.running for health in self._loaded.values())
        names = {
            name for health in self._loaded.values() for name in (health.model.upstream, *health.model.steps)
        }
        return max(0, self._load.last.of(names) - own)

    def generate(self, generation: Generation) -> AsyncGenerator[Output, None]:
        health = self._loaded.get(generation.model)
        if health is None:
            if generation.model not in self._offered:
                raise UnknownModel.of(generation.model, list(self._offered))
            raise BackendFailed(f"model {generation.model!r} is not loaded")
        embeds = generation.kind == "embedding"
        if embeds != health.model.embeds:
            does = "makes no embeddings" if embeds else "is an embedding model"
            raise InvalidRequest(f"model {generation.model!r}: it {does}", param="model")
        if generation.kind == "embedding":
            return stream_vectors(health, generation, self._settings)
        return stream_text(health, generation, self._settings)

    async def _discover(self, server: TritonClient, index: dict[str, str]) -> None:
        """Find the models to offer. One that is neither loaded nor installed here is loaded to describe
        it."""
        names = self._settings.models or {name: name for name in sorted(index)}
        for name, upstream in names.items():
            if upstream not in index:
                raise UnknownModel(
                    f"no model {upstream!r} in the repository of {server.host}; it has: "
                    f"{', '.join(sorted(index)) or 'none'}",
                    param="model",
                )
            manifest = installed_manifest(name, self._settings.models_folder)
            try:
                if index[upstream] == READY:
                    self._offered[name] = await self._describe(server, name, upstream)
                elif manifest is not None:
                    self._offered[name] = describe_unloaded(name, upstream, manifest)
                elif self._settings.models:
                    await load_model(server, upstream)
                    self._offered[name] = await self._describe(server, name, upstream)
                else:
                    log.info(
                        "model %s of %s is neither loaded nor installed here: not served",
                        upstream,
                        server.host,
                    )
            except UnservableModel as error:
                log.info("model %s of %s is not served: %s", upstream, server.host, error)

    async def _describe(self, server: TritonClient, name: str, upstream: str) -> ServedModel:
        metadata, config = await asyncio.gather(server.metadata(upstream), server.config(upstream))
        try:
            return describe_loaded(name, metadata, config, self._settings.models_folder)
        except UnservableModel as error:
            if name in self._settings.models or name in self._offered:
                raise BackendFailed(
                    f"model {upstream!r} of {server.host} cannot be served: {error}"
                ) from error
            raise

    def _known(self, model: str) -> ServedModel:
        if model not in self._offered:
            raise UnknownModel.of(model, list(self._offered))
        return self._offered[model]

    def _running(self) -> TritonClient:
        if self._server is None:
            raise Unavailable(f"the backend for {self._settings.url} is not started")
        return self._server
