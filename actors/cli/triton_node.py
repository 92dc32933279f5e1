"""The Triton server of `orchestra node --backend triton`: a given one, or one that the node starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from actors.backends.base import Backend
from actors.cli.progress import pull_model
from actors.node.backend_factory import ServedName, triton_backend
from actors.settings import Settings
from actors.triton import TritonServer, TritonServerSettings
from actors.triton.config import check_repository
from actors.triton.repository import write_repository
from actors.triton.repository_plan import ModelSpec
from orchestration.errors import BackendFailed

REPOSITORY = "repository"


def has_repository(settings: TritonServerSettings) -> bool:
    """Whether the settings name a repository."""
    return settings.repository != TritonServerSettings().repository


def own_server(settings: Settings) -> TritonServerSettings:
    """The settings of the server that the node starts: with its folders, and with tracing if telemetry has
    it. In a repository that the settings name, Triton may complete configurations, which is Triton's
    default."""
    server, data = settings.triton_server, settings.folder / "triton"
    collector = settings.telemetry.otlp_endpoint.rstrip("/")
    return server.model_copy(
        update={
            "data": data,
            "auto_complete": server.auto_complete or has_repository(server),
            "repository": (server.repository if has_repository(server) else data / REPOSITORY)
            .expanduser()
            .absolute(),
            "trace_url": server.trace_url or (f"{collector}/v1/traces" if collector else ""),
        }
    )


class TritonNode:
    """The Triton server of one node. The constructor, before the node joins, pulls models or checks a
    repository.

    A repository from the settings (`triton_server.repository`) is used as it is. The node's own is written
    at each start, so that it fits this version and these settings.
    """

    def __init__(self, settings: Settings, serve: Sequence[ServedName], options: Mapping[str, Any]) -> None:
        """`options` are those of the backend. Raises `InvalidRequest`, and what a pull raises."""
        self._options = {"models_folder": settings.models_folder} | settings.triton | dict(options)
        self._serve = list(serve)
        self._models_folder = settings.models_folder
        self._own: TritonServerSettings | None = None
        if self._options.get("url"):
            triton_backend(self._serve, self._options)
            return
        self._own = own_server(settings)
        self._written = not has_repository(settings.triton_server)
        if not self._written:
            check_repository(self._own.repository)
            return
        self._serve = self._serve or [ServedName(name=name, upstream=name) for name in settings.models]
        triton_backend(self._serve, self._options)  # a wrong setting fails before a long pull
        for each in self._serve:
            pull_model(each.upstream, self._models_folder)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Backend, TritonServer | None]]:
        """The backend, and the server if the node started one. Raises `TritonError`."""
        if self._own is None:
            yield triton_backend(self._serve, self._options), None
            return
        if self._written:
            self._own.repository.mkdir(parents=True, exist_ok=True)
        async with TritonServer(self._own) as server:
            if self._written:
                await asyncio.to_thread(self._write, self._own)
            where = {"url": server.url, "metrics_url": server.metrics_url}
            try:
                yield triton_backend(self._serve, self._options | where), server
            except BackendFailed as error:
                raise BackendFailed(f"{error.message}; Triton's log is {server.files.log}") from error

    def _write(self, own: TritonServerSettings) -> None:
        names = [each.upstream for each in self._serve]
        spec = ModelSpec(partitions=own.partitions, device=own.device, runtime=own.runtime)
        write_repository(own.repository, self._models_folder, names, spec, force=True)
