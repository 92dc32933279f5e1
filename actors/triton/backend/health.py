"""Monitors the health of a loaded model, and reloads it when it died.

When a model's process dies, its streams hang and Triton (2.51) still reports the model as ready. So a silent
model is probed, and reloaded if it does not answer. After a restart of the server, models are reloaded the
same way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import Context

from tritonclient.grpc import InferInput, InferResult

from actors.runtime.envelope import current_envelope
from actors.triton.backend.client import ResponseStream, TritonClient
from actors.triton.backend.errors import ModelDead, NotLoaded, ServerGone
from actors.triton.backend.repository import load_model
from actors.triton.backend.requests import probe_inputs
from actors.triton.backend.served_model import ServedModel
from actors.triton.backend.settings import TritonSettings
from orchestration.errors import BackendFailed, OrchestraError, Unavailable

log = logging.getLogger(__name__)

IDLE_LOOKS = 10
"""An idle model is probed at every n-th check; the other checks only ask whether it is loaded."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.2, 5.0
"""First and maximum pause between attempts to reload."""


class ModelHealth:
    """Monitors one model from its load until `stop`."""

    def __init__(self, server: TritonClient, settings: TritonSettings, model: ServedModel) -> None:
        self.model = model
        self.running = 0
        self.revivals = 0
        self._server = server
        self._settings = settings
        self._streams: set[ResponseStream] = set()
        self._trouble: OrchestraError | None = None
        self._condemned: ModelDead | None = None
        self._suspected = asyncio.Event()
        self._last_response_at = asyncio.get_running_loop().time()
        # Its own context: probes must not belong to the trace of the load.
        self._watching = asyncio.create_task(
            self._watch(), name=f"triton {model.card.name}", context=Context()
        )

    async def stop(self) -> None:
        """Stop monitoring; running requests go on."""
        self._watching.cancel()
        await asyncio.wait({self._watching})

    @contextmanager
    def open_stream(self, inputs: list[InferInput]) -> Iterator[ResponseStream]:
        """Send a request; `next` returns its responses. It is cancelled at the end of the block.

        Raises `Unavailable` while the model is being reloaded.
        """
        if self._trouble is not None:
            name = self.model.card.name
            raise Unavailable(f"model {name!r} is being reloaded: {self._trouble}", retry_after_s=1)
        left = current_envelope.get().remaining(0) or None
        stream = self._server.stream(self.model.upstream, inputs, left)
        self._streams.add(stream)
        self.running += 1
        try:
            yield stream
        finally:
            self.running -= 1
            self._streams.discard(stream)
            stream.cancel()

    async def next(self, stream: ResponseStream, limit_s: float) -> InferResult | None:
        """The next response within `limit_s` seconds, None after the last.

        Raises `Unavailable` or `BackendFailed`, as the cause of a reload is, when that cuts the stream off.
        """
        try:
            async with asyncio.timeout(limit_s):
                result = await stream.next()
        except TimeoutError:
            raise self._silent(limit_s) from None
        except asyncio.CancelledError:
            task, trouble = asyncio.current_task(), self._trouble
            if trouble is None or (task is not None and task.cancelling()):
                raise
            kind = Unavailable if isinstance(trouble, Unavailable) else BackendFailed
            raise kind(f"the answer was cut off because the model is reloaded: {trouble}") from None
        except ModelDead as error:
            self._condemn(error)
            raise
        except (NotLoaded, ServerGone):
            self._suspected.set()
            raise
        self._last_response_at = asyncio.get_running_loop().time()
        return result

    def _silent(self, limit_s: float) -> BackendFailed:
        """The error for a stalled stream; without any other output the model is taken for dead."""
        name, host = self.model.card.name, self._server.host
        error = ModelDead(f"model {name!r} at {host} stalled: no output within {limit_s:g} s")
        if asyncio.get_running_loop().time() - self._last_response_at >= limit_s * 0.9:
            self._condemn(error)
        return error

    def _condemn(self, error: ModelDead) -> None:
        self._condemned = error
        self._suspected.set()

    async def _watch(self) -> None:
        loop, looks = asyncio.get_running_loop(), 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.watch_s):
                    await self._suspected.wait()
            suspected = self._suspected.is_set()
            self._suspected.clear()
            looks += 1
            if not suspected and loop.time() - self._last_response_at < self._settings.watch_s:
                continue
            ask = suspected or self.running > 0 or looks % IDLE_LOOKS == 0
            trouble = self._condemned or await self._look(ask)
            if trouble is not None:
                await self._revive(trouble)
                self._condemned = None
                self._suspected.clear()

    async def _look(self, ask: bool) -> OrchestraError | None:
        """Check the model. Returns its problem, or None."""
        inputs = probe_inputs(self.model) if ask else []
        limit = self._settings.probe_timeout_s
        stream = self._server.stream(self.model.upstream, inputs, None) if inputs else None
        try:
            async with asyncio.timeout(limit):
                if stream is None:
                    await self._server.metadata(self.model.upstream)
                else:
                    while await stream.next() is not None:
                        pass
        except TimeoutError:
            return ModelDead(
                f"{self._server.host} did not answer a probe within {limit:g} s (probe_timeout_s)"
            )
        except (ModelDead, NotLoaded, ServerGone) as error:
            return error
        except OrchestraError:  # an error is an answer, too
            return None
        finally:
            if stream is not None:
                stream.cancel()
        return None

    async def _revive(self, trouble: OrchestraError) -> None:
        """Cancel the model's streams, which move to other nodes, and reload it with growing pauses."""
        name, pause = self.model.card.name, FIRST_PAUSE_S
        still: OrchestraError | None = trouble
        while still is not None:
            if self._trouble is None or str(self._trouble) != str(still):
                log.error("model %s must be reloaded: %s", name, still)
                pause = FIRST_PAUSE_S
            self._trouble = still
            for stream in list(self._streams):
                stream.cancel()
            still = await self._attempt(still)
            if still is not None:
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_S)
        self.revivals += 1
        self._trouble = None
        self._last_response_at = asyncio.get_running_loop().time()
        log.warning("model %s at %s was reloaded", name, self._server.host)

    async def _attempt(self, trouble: OrchestraError) -> OrchestraError | None:
        """Try to reload. Returns the remaining problem, or None. A missing server is only probed."""
        try:
            if isinstance(trouble, ModelDead):
                await self._server.unload(self.model.upstream)
            if not isinstance(trouble, ServerGone):
                await load_model(self._server, self.model.upstream)
        except OrchestraError as error:
            return error
        return await self._look(True)
