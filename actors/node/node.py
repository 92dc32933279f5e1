"""A node: an actor around one backend that takes generations and streams their answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from secrets import token_hex
from typing import cast

from actors.backends.base import Backend, KeepAlive, Output
from actors.bus.bus import Bus, Message, Subscription
from actors.bus.cancel_registry import CancelRegistry
from actors.bus.message import unix_ns
from actors.bus.subjects import NodeAddress, StreamAddress
from actors.cluster.node_registration import NodeRegistration
from actors.node.answer_meter import AnswerMeter
from actors.node.generation_form import for_backend
from actors.node.generation_spans import start_generation_span
from actors.node.metrics import NodeMetrics, duration
from actors.node.model_manager import ModelManager
from actors.node.model_puller import ModelPuller
from actors.node.rates import RateMeter
from actors.node.settings import NodeSettings
from actors.node.stall_detector import StallDetector
from actors.runtime.actor import Actor
from actors.runtime.envelope import current_envelope
from actors.streams.writer import StreamWriter
from actors.telemetry import conventions as names
from actors.telemetry.event_log import event_log
from actors.telemetry.tracing import OpenSpan, Scope, current_scope, start_span
from orchestration.errors import (
    BackendFailed,
    Cancelled,
    InvalidRequest,
    NodeBusy,
    OrchestraError,
    ShuttingDown,
    Unavailable,
)
from orchestration.messages import (
    Continuation,
    Finish,
    Generation,
    GenerationEnd,
    LabelNode,
    ListPulls,
    LoadModel,
    LoadResult,
    ModelPull,
    ModelPulls,
    NodeInfo,
    NodeLabels,
    PinModel,
    PullModel,
    TextDelta,
    UnloadModel,
    Usage,
    Vectors,
)

log = logging.getLogger(__name__)

REMEMBERED_CANCELS = 10_000
MAX_LABELS = 64
"""Maximum labels of a node: every dispatcher reads them."""
DEADLINE_MARGIN_S = 0.01
"""A timer of the event loop may fire this much before the deadline."""


class Node(Actor):
    """Runs generations on `backend`, at most `slots` at once; one more is refused with `NodeBusy`.

    Events go to `stream.<generation id>`; the reply to the dispatcher is the `GenerationEnd` that ended the
    stream. A retryable error goes to the dispatcher only, so that another node can continue the stream.
    """

    concurrency = 65_536  # the slots limit it, so that a refusal comes at once

    def __init__(
        self, bus: Bus, backend: Backend, settings: NodeSettings, models_folder: Path | None = None
    ) -> None:
        """`models_folder` is where operators may pull models to."""
        self.bus = bus
        self.backend = backend
        self.id = settings.named(backend.name)
        self.settings = settings
        self.slots = settings.slots or backend.slots
        self.identity_lost = asyncio.Event()
        """Set when another node took this one's id: the process must stop."""
        self.drain_requested = asyncio.Event()
        """Set by `orchestra node drain`: generations end or move to other nodes, then the node leaves."""
        self.drained = asyncio.Event()
        """Set when the node has left; a process that runs only this node ends then."""
        self._stalls = StallDetector(settings.stall_s, settings.first_output_s)
        self._started_at = time.time()
        self._joined = False
        self._leaving = False
        self._active: dict[str, asyncio.Task[object]] = {}
        self._scopes: dict[str, Scope] = {}
        """The scopes of the generations that are traced."""
        self._cancels = CancelRegistry(bus, self._cancel, limit=REMEMBERED_CANCELS)
        self._registration = NodeRegistration(bus, self.id, self.describe, self.identity_lost.set)
        self.models = ModelManager(
            self.id, backend, round(settings.memory_mb * 1e6), self._registration.notify_change
        )
        self.labels = dict(settings.labels)
        """Those of the settings, as operators have changed them since."""
        self.puller = ModelPuller(self.id, self.models, models_folder)
        self._subscriptions: list[Subscription] = []
        self._metrics = NodeMetrics(self.id)
        self._rates = RateMeter()

    def describe(self) -> NodeInfo:
        """The node as the registry shows it."""
        return NodeInfo(
            id=self.id,
            backend=self.backend.name,
            models=self.models.cards,
            left_out=self.backend.left_out,
            hardware=self.backend.hardware,
            memory=self.models.memory_use,
            labels=self.labels,
            rates=self._rates.snapshot(),
            slots=self.slots,
            running=len(self._active) + self.backend.external_load,
            draining=self._leaving,
            started_at=self._started_at,
        )

    async def started(self) -> None:
        await self._registration.claim()
        await self.models.start()
        address = NodeAddress(self.id)
        served = ((address.ping, self._ping), (address.stop, self._stop), (address.drain, self._drain))
        self._subscriptions = [await self.bus.subscribe(*each) for each in served]
        await self._cancels.start()
        self._stalls.start()
        self._metrics.slots.set(self.slots)
        if self._joined:  # after a crash
            await self._registration.join()

    async def join(self) -> None:
        """Appear in the registry; call it once the node's subject is served."""
        self._joined, self._leaving = True, False
        await self._registration.join()
        self._record(
            "joined", f"node {self.id} serves {', '.join(card.name for card in self.backend.models)}"
        )

    async def leave(self) -> None:
        """Accept no more work; generations in progress go on.

        The registry entry stays, marked as draining, until the node has stopped. Otherwise a node that ends
        its generations would look like one that died.
        """
        self._joined, self._leaving = False, True
        self._record("draining", f"node {self.id} takes no more work")
        try:
            await self._registration.refresh()
        except OrchestraError as error:
            log.warning("node %s could not publish that it drains: %s", self.id, error)

    def _record(self, what: str, message: str) -> None:
        data = {"backend": self.backend.name, "models": [card.name for card in self.backend.models][:20]}
        event_log.record(f"node.{what}", node=self.id, message=message, data=data)

    async def stopped(self) -> None:
        self._stalls.stop()
        await self._registration.leave()
        self._record("left", f"node {self.id} left")
        await self._cancels.stop()
        for subscription in self._subscriptions:
            await subscription.unsubscribe()
        await self.models.close()

    async def on_load_model(self, message: LoadModel) -> LoadResult:
        """Load the model, evicting others if needed. Raises `NodeBusy` if these are in use."""
        began = time.perf_counter()
        with self._start_model_span("load", message.model):
            if message.ahead:
                changed = await self.models.load_ahead(message.model, message.leaving)
            else:
                changed = await self.models.load(message.model)
        return await self._residence(message.model, True, changed, began)

    async def on_unload_model(self, message: UnloadModel) -> LoadResult:
        """Unload the model once what runs on it has ended."""
        began = time.perf_counter()
        with self._start_model_span("unload", message.model):
            changed = await self.models.unload(message.model)
        return await self._residence(message.model, False, changed, began)

    async def on_pin_model(self, message: PinModel) -> LoadResult:
        """Keep the model in memory, or no longer. Raises as a load does."""
        began = time.perf_counter()
        models = self.models
        changed = await models.pin(message.model) if message.pinned else models.unpin(message.model)
        return await self._residence(message.model, message.pinned, changed, began)

    async def on_label_node(self, message: LabelNode) -> NodeLabels:
        """Change the labels. Raises `InvalidRequest` beyond `MAX_LABELS`."""
        before = self.labels
        after = {name: value for name, value in before.items() if name not in message.remove} | message.labels
        if len(after) > MAX_LABELS:
            raise InvalidRequest(f"limit reached: a node has at most {MAX_LABELS} labels", param="labels")
        self.labels = after
        if after != before:
            await self._registration.refresh()
        return NodeLabels(before=before, after=after)

    async def on_pull_model(self, message: PullModel) -> ModelPull:
        """Begin to download a model; the answer comes before its end. Raises as `ModelPuller.begin` does."""
        return self.puller.begin(message.model)

    async def on_list_pulls(self, message: ListPulls) -> ModelPulls:
        return ModelPulls(pulls=self.puller.pulls)

    async def _residence(self, model: str, loaded: bool, changed: bool, began: float) -> LoadResult:
        """The reply to a load or unload, sent after the registry entry was updated."""
        seconds = time.perf_counter() - began
        if changed:
            await self._registration.refresh()
        return LoadResult(node=self.id, model=model, loaded=loaded, changed=changed, seconds=seconds)

    async def on_generation(self, message: Generation) -> GenerationEnd:
        """Run it; the result is the event that ended the stream."""
        continuation = message.continuation or Continuation()
        if message.id in self._cancels or f"{message.id} {continuation.writer}" in self._cancels:
            raise Cancelled(f"{message.id} was cancelled before node {self.id} began")
        if message.id in self._active:
            raise NodeBusy(f"node {self.id} already runs {message.id}")
        if len(self._active) >= self.slots:
            raise NodeBusy(
                f"limit reached: all {self.slots} slots of node {self.id} are in use (node.slots)",
                retry_after_s=0.5,
            )
        loading = self.models.acquire(message.model)
        task = asyncio.current_task()
        assert task is not None
        name = continuation.writer or (token_hex(4) if current_envelope.get().attempt > 1 else "")
        address = StreamAddress(message.id)
        span = start_generation_span(message, self.id, self.backend.name)
        if (scope := current_scope.get()) is not None:
            self._scopes[message.id] = scope

        def on_gone() -> None:
            if writer.gone_ns and scope is not None:
                scope.close(writer.gone_ns)
            elif not writer.superseded:  # the caller's process is gone, and with it the parent of the span
                span.abandon()
            task.cancel()

        writer = StreamWriter(
            self.bus, address, on_gone, name, continuation.first_seq, streamed=message.streamed
        )
        self._active[message.id] = task
        self._stalls.begin(message.id, task)
        self._load_changed()
        began, outcome = time.perf_counter(), "cancelled"
        try:
            if loading is not None:
                with start_span(f"load {message.model}", span.traceparent):
                    await self._loaded(message.model, loading)
            load_s = 0.0 if loading is None else time.perf_counter() - began
            ended = await self._run(message, writer, span, load_s)
            outcome = ended.error.code if ended.error else ended.finish.reason
            return ended
        except asyncio.CancelledError:
            if self._stalls.stalled(message.id):
                outcome = BackendFailed.code
                self._rates.failed(message.model)
                error = self._stalls.error(message.id, self.backend.name)
                span.end(error)
                raise error from None
            deadline = current_envelope.get().deadline
            if 0 < deadline < time.time() + DEADLINE_MARGIN_S:
                raise  # the deadline ends the generation, not this node
            # If this node stops (the caller did not cancel), another node continues from what was sent.
            writer.flush_now()
            raise ShuttingDown(f"node {self.id} stopped before the answer was complete") from None
        except OrchestraError as error:
            outcome = error.code
            span.end(error)
            if isinstance(error, BackendFailed | Unavailable):
                self._rates.failed(message.model)
            raise
        finally:
            span.end(asyncio.CancelledError() if outcome == "cancelled" else None)
            self._scopes.pop(message.id, None)
            writer.close()
            self.models.release(message.model)
            self._stalls.forget(message.id)
            del self._active[message.id]
            self._load_changed()
            duration(message.model, outcome).observe(time.perf_counter() - began)

    def _start_model_span(self, what: str, model: str) -> OpenSpan:
        return start_span(f"{what} {model}", current_envelope.get().trace, {names.NODE: self.id})

    async def _loaded(self, model: str, loading: asyncio.Future[None]) -> None:
        """Wait for the load. A failure is retryable: another node may be able to load the model."""
        try:
            await loading
        except OrchestraError as error:
            raise BackendFailed(f"node {self.id} cannot load model {model!r}: {error.message}") from error

    async def _run(
        self, generation: Generation, writer: StreamWriter, span: OpenSpan, load_s: float
    ) -> GenerationEnd:
        """The end that was written. The span ends before that is read, and so before its parent."""
        try:
            finish = await self._stream(generation, writer, span)
        except OrchestraError as error:
            if error.retryable:
                writer.flush_now()
                raise
            if error.param == "guide" and generation.guide is not None and generation.guide.field:
                error.param = generation.guide.field
                error.message = f"{error.param}: {error.message}"
            span.end(error)
            finish = Finish(reason="error", node=self.id, model=generation.model)
            return await writer.end(GenerationEnd(finish=finish, load_s=load_s, error=error.body()))
        except Exception as error:  # a defect of a backend ends one generation, not all
            log.exception("backend %s failed on %s", self.backend.name, generation.id)
            writer.flush_now()
            raise BackendFailed(f"{self.backend.name} failed: {type(error).__name__}: {error}") from error
        span.end()
        whose = {"node": self.id, "model": generation.model}
        return await writer.end(GenerationEnd(finish=finish.model_copy(update=whose), load_s=load_s))

    async def _stream(self, generation: Generation, writer: StreamWriter, span: OpenSpan) -> Finish:
        """Forward the backend's outputs. Raises `BackendFailed` when it ends without a finish."""
        limit = generation.sampling.max_tokens
        if limit is not None and 0 < limit <= generation.prefix_tokens:  # only the end was lost
            usage = Usage(completion_tokens=generation.prefix_tokens, estimated=True)
            return Finish(reason="length", usage=usage)
        generation, notes = for_backend(generation, self.backend)
        meter = AnswerMeter(generation, len(self._active) - 1)
        generating = cast(AsyncGenerator[Output, None], self.backend.generate(generation))
        finished = False
        try:
            async with aclosing(generating) as outputs:
                async for output in outputs:
                    if isinstance(output, Finish):
                        finished = True
                        meter.finished(output.usage, self._rates, span, len(self._active) - 1)
                        notes = (*notes, *output.notes)
                        return output.model_copy(update={"notes": notes}) if notes else output
                    if isinstance(output, KeepAlive):
                        self._stalls.alive(generation.id)
                        writer.alive()
                        continue
                    self._stalls.progress(generation.id)
                    if isinstance(output, TextDelta):
                        meter.piece(output.tokens)
                        await writer.write(output)
                    elif isinstance(output, Vectors):
                        meter.piece(0)
                        await writer.vectors(output)
            raise BackendFailed(f"{self.backend.name} ended without a finish")
        finally:
            if not finished:
                meter.cut_off()

    def _load_changed(self) -> None:
        self._metrics.running.set(len(self._active))
        self._registration.notify_change()

    def _ping(self, message: Message) -> None:
        self.bus.answer(message, self.bus.connection_id.encode())

    def _drain(self, message: Message) -> None:
        self.drain_requested.set()
        self.bus.answer(message, b"%d" % len(self._active))

    def _stop(self, message: Message) -> None:
        """Stop one writer of a generation because another node was faster; it may come back with another
        writer. The message has the generation, the writer and the time."""
        writer, _, at = message.data.decode(errors="replace").rpartition(" ")
        if not self._cancel(writer.partition(" ")[0], unix_ns(at.encode())):
            self._cancels.remember(writer)

    def _cancel(self, generation_id: str, at_ns: int) -> bool:
        task = self._active.get(generation_id)
        if task is not None:
            if (scope := self._scopes.get(generation_id)) is not None:
                scope.close(at_ns)
            task.cancel()
        return task is not None
