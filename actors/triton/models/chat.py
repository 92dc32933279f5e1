"""A chat model inside Triton: requests join and leave the engine's batch at every step."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from typing import Any, cast

from actors.engine.backend import EngineBackend
from actors.triton.models.chat_metrics import ChatMetrics
from actors.triton.models.chat_request import ChatRequest, Tensors, parse_request
from actors.triton.models.loop import LoopThread
from actors.triton.models.pending_request import PendingRequest
from orchestration.errors import (
    BackendFailed,
    Cancelled,
    InternalError,
    InvalidRequest,
    OrchestraError,
    ShuttingDown,
)
from orchestration.messages import Finish, TextDelta

log = logging.getLogger(__name__)

_WATCH_S = 0.05
"""How often clients of requests without output yet are checked; those with output are checked at each
response."""

_TELL_S = 0.5
"""Maximum age of the figures at /metrics."""


class ChatServer:
    """Answers the requests of a decoupled Triton model (tensors: `triton_models/llm`) from `backend`.

    `pb` is `triton_python_backend_utils`, which exists only in Triton's stub. Every request gets a last
    response, whatever fails.
    """

    def __init__(self, pb: Any, backend: EngineBackend, *, name: str) -> None:
        """Load the model, `name` in Triton. Raises what `EngineBackend.start` raises."""
        self._pb = pb
        self._backend = backend
        self._live: dict[PendingRequest, asyncio.Task[None] | None] = {}
        self._number = 0
        self._loop = LoopThread("chat", self._abandon)
        try:
            self._model = self._loop.call(self._start())
        except BaseException:
            self._loop.stop()
            raise
        self._metrics = ChatMetrics(pb, name)
        self._watch = asyncio.run_coroutine_threadsafe(self._watching(), self._loop.loop)

    def take(self, requests: list[Any]) -> None:
        """Begin to answer requests; called by the model's `execute`."""
        for request in requests:
            caller = PendingRequest(self._pb, request.get_response_sender())
            self._number += 1
            try:
                parsed = parse_request(Tensors(self._pb, request), model=self._model, number=self._number)
            except OrchestraError as error:
                caller.fail(error)
                continue
            # Registered before the loop gets it: if the loop dies, `_abandon` answers it.
            self._live[caller] = None
            if self._loop.alive:
                self._loop.loop.call_soon_threadsafe(self._begin, caller, parsed, time.monotonic())
            if not self._loop.alive:
                self._abandon()

    def close(self, *, drain_s: float = 30.0) -> None:
        """Wait for running requests for at most `drain_s`, then free everything."""
        if self._loop.alive:
            self._loop.call(self._drain(drain_s))
        self._loop.stop()

    async def _start(self) -> str:
        await self._backend.start()
        (card,) = self._backend.models
        if card.kind == "embedding":
            await self._backend.close()
            raise InvalidRequest(
                f"model {card.name!r} is an embedding model, not a chat model", param="model"
            )
        return card.name

    def _begin(self, caller: PendingRequest, parsed: ChatRequest, at: float) -> None:
        self._live[caller] = self._loop.loop.create_task(self._answer(caller, parsed, at))

    async def _answer(self, caller: PendingRequest, parsed: ChatRequest, at: float) -> None:
        try:
            await self._stream(caller, parsed, at)
        except OrchestraError as error:
            caller.fail(error)
        except asyncio.CancelledError:
            self._metrics.cancelled += 1
            caller.fail(Cancelled("the client cancelled the request"))
            raise
        except Exception as error:  # every request must get a last response
            log.exception("a generation failed")
            caller.fail(InternalError(f"{type(error).__name__}: {error}"))
        finally:
            self._live.pop(caller, None)

    async def _stream(self, caller: PendingRequest, parsed: ChatRequest, at: float) -> None:
        held: list[TextDelta] = []
        started = False
        async with aclosing(cast(Any, self._backend.generate(parsed.generation))) as outputs:
            async for output in outputs:
                if caller.gone():
                    self._metrics.cancelled += 1
                    raise Cancelled("the client cancelled the request")
                if isinstance(output, Finish):
                    caller.send(held, output)
                    return
                if not started:
                    started = True
                    self._metrics.first_token(time.monotonic() - at)
                if parsed.stream:
                    caller.send([output])
                else:
                    held.append(output)
        raise BackendFailed(f"model {self._model!r} ended without a finish")

    async def _watching(self) -> None:
        updated_at = 0.0
        while True:
            for caller, task in list(self._live.items()):
                if task is not None and caller.gone():
                    task.cancel()
            if time.monotonic() - updated_at >= _TELL_S:
                self._metrics.tell(self._backend.stats[0])
                updated_at = time.monotonic()
            await asyncio.sleep(_WATCH_S)

    async def _drain(self, seconds: float) -> None:
        tasks = [task for task in self._live.values() if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        self._watch.cancel()
        await self._backend.close()  # the engine answers the remaining requests
        if left := [task for task in tasks if not task.done()]:
            await asyncio.wait(left, timeout=seconds)

    def _abandon(self) -> None:
        """Answer all remaining requests after the loop has ended."""
        while self._live:
            caller, _ = self._live.popitem()
            caller.fail(ShuttingDown("the model's loop has ended; load the model anew"))
