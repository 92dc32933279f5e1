"""A backend over model folders of this machine: one continuous-batching engine per model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil

from actors.backends.base import Backend, Output, host_hardware
from actors.engine.job import ChatJob, EmbeddingJob, OutputQueue
from actors.engine.loading import ChatModel, EmbeddingModel, describe_model, load_model
from actors.engine.metrics import engine_metrics
from actors.engine.runtime import Runtime
from actors.engine.sampling import SamplingPlan
from actors.engine.settings import EngineSettings
from actors.engine.token_rules import TokenRules
from actors.engine.tool_calling import guide_error, parse_outputs, with_call_guide
from actors.engine.worker import EngineStats
from actors.models.errors import ModelError
from actors.telemetry.memory import release_memory
from orchestration.errors import (
    BackendFailed,
    ContextTooLong,
    InvalidGuide,
    InvalidRequest,
    OrchestraError,
    Unavailable,
    UnknownModel,
)
from orchestration.json_schema import resolve_references
from orchestration.messages import (
    EmbeddingGeneration,
    Finish,
    Generation,
    Hardware,
    ModelCard,
    TextGeneration,
    Usage,
)
from orchestration.model_memory import Residency

log = logging.getLogger(__name__)

T = TypeVar("T")

_INLINE_CHARS = 2000
"""Maximum length of a prompt that is tokenised on the event loop; it takes less than a millisecond, about the
cost of a thread."""


class EngineBackend(Backend):
    """Serves model folders (see `actors.models.manifest`). Each has an engine with its own thread."""

    name = "engine"
    serves_folders = True
    calls_tools = True

    def __init__(self, folders: Sequence[Path], settings: EngineSettings, runtime: Runtime) -> None:
        self._folders = tuple(folders)
        self._settings = settings
        self._runtime = runtime
        self._offered: dict[str, tuple[Path, ModelCard]] = {}
        self._left_out: dict[str, str] = {}
        self._served: dict[str, ChatModel | EmbeddingModel] = {}
        """Models in memory."""
        self._prepare = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine-prepare")
        self._closed = False

    async def start(self, memory_bytes: int = 0) -> None:
        """Load the folders. A model that cannot be loaded is left out.

        Raises what `load_model` raises if no model is left, and InvalidRequest for two models of one name.
        """
        engine_metrics.backends.append(self)
        try:
            for folder in self._folders:
                await self._offer(folder)
            sizes = {name: card.memory_bytes for name, (_, card) in self._offered.items()}
            for name in Residency(memory_bytes, sizes).fitting():
                try:
                    await self.load(name)
                except (ModelError, BackendFailed) as error:
                    del self._offered[name]
                    self._leave_out(name, error)
        except BaseException:
            await self.close()
            raise

    async def _offer(self, folder: Path) -> None:
        try:
            card = await self._aside(partial(describe_model, folder, self._settings, self._runtime))
        except ModelError as error:
            self._leave_out(folder.name, error)
            return
        if card.name in self._offered:
            raise InvalidRequest(f"two folders hold a model named {card.name!r}", param="model")
        self._offered[card.name] = folder, card

    async def add(self, folder: Path) -> ModelCard:
        """Offer one more folder, or the same one again. Raises what `describe_model` raises."""
        card = await self._aside(partial(describe_model, folder, self._settings, self._runtime))
        self._offered[card.name] = folder, card
        self._left_out.pop(card.name, None)
        return card

    def _leave_out(self, name: str, error: OrchestraError) -> None:
        """Record that a model cannot be served. Raises `error` if it was the last one."""
        self._left_out[name] = error.message
        if len(self._left_out) == len(self._folders):
            raise error
        log.error("model %s is left out: %s", name, error.message)

    async def load(self, model: str) -> None:
        """Raises what `load_model` raises, and BackendFailed for files that cannot be read."""
        if model not in self._offered:
            raise UnknownModel.of(model, list(self._offered))
        folder, _ = self._offered[model]
        try:
            made = await asyncio.to_thread(load_model, folder, self._settings, self._runtime)
        except (OSError, MemoryError) as error:
            raise BackendFailed(f"cannot load model {model!r}: {error}") from error
        if self._closed:
            raise Unavailable("the backend was closed")
        made.engine.start()
        self._served[model] = made

    async def unload(self, model: str) -> None:
        if model in self._served:
            await asyncio.to_thread(_dispose, [self._served.pop(model)])

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self in engine_metrics.backends:
                engine_metrics.backends.remove(self)
            for model in self._served.values():
                await asyncio.to_thread(model.engine.close)
            self._served.clear()
            self._offered.clear()
            self._prepare.shutdown(wait=False, cancel_futures=True)

    @property
    def models(self) -> tuple[ModelCard, ...]:
        return tuple(card for _, card in self._offered.values())

    @property
    def loaded(self) -> frozenset[str]:
        return frozenset(self._served)

    @property
    def left_out(self) -> dict[str, str]:
        return self._left_out

    @property
    def memory_bytes(self) -> int:
        """Half of the machine's memory: the keys and values come on top of the weights."""
        return psutil.virtual_memory().total // 2

    @property
    def cache_bytes(self) -> int:
        return sum(reading.cache_bytes for reading in self.stats)

    @property
    def hardware(self) -> Hardware:
        return host_hardware(self._runtime.provider)

    @property
    def slots(self) -> int:
        """The slots of all loaded chat models together."""
        chats = sum(isinstance(model, ChatModel) for model in self._served.values())
        return self._settings.slots * max(1, chats)

    @property
    def stats(self) -> tuple[EngineStats, ...]:
        """The statistics of each loaded model."""
        return tuple(model.engine.stats for model in self._served.values())

    async def generate(self, generation: Generation) -> AsyncIterator[Output]:
        """See `Backend.generate`. Also raises `NodeBusy` if the model's queue is full."""
        if self._closed:
            raise Unavailable("the backend was closed")
        model = self._served.get(generation.model)
        if model is None:
            if generation.model in self._offered:
                raise BackendFailed(f"model {generation.model!r} is not loaded")
            raise UnknownModel.of(generation.model, list(self._offered))
        with model.engine.place():
            if isinstance(model, EmbeddingModel):
                outputs = self._embedded(model, generation)
            elif generation.kind == "embedding":
                raise InvalidRequest(
                    f"model {generation.model!r} is a chat model and makes no embeddings", param="model"
                )
            else:
                outputs = self._answered(model, _with_own_references(with_call_guide(generation)))
            async with aclosing(outputs):
                async for item in parse_outputs(outputs, generation):
                    yield item

    async def _embedded(self, model: EmbeddingModel, generation: Generation) -> AsyncGenerator[Output, None]:
        async with self._output_queue(model) as queue:
            model.engine.submit(await self._embedding_job(model, generation, queue))
            async for item in _received(queue):
                yield item

    async def _answered(self, model: ChatModel, generation: TextGeneration) -> AsyncGenerator[Output, None]:
        """The outputs of a generation; checked at the end if the grammar covers only part of the schema."""
        relaxed = await self._relaxed(model, generation)
        if not relaxed:
            async for item in self._written(model, generation):
                yield item
            return
        # Imported here: it is slow, and few schemas need it.
        from actors.engine.conformance import SchemaCheck, checked_outputs, correction

        assert generation.guide is not None
        assert generation.guide.json_schema is not None
        again = partial(correction, generation, partial(self._written, model))
        written = self._written(model, generation.model_copy(update={"continuation": None}))
        try:
            check = SchemaCheck(generation.guide.json_schema)
        except InvalidGuide as error:
            raise guide_error(generation, error) from error
        async for item in checked_outputs(written, check, relaxed, again):
            yield item

    async def _relaxed(self, model: ChatModel, generation: TextGeneration) -> tuple[str, ...]:
        """The parts of the schema that the grammar does not enforce."""
        guide = generation.guide
        if guide is None or guide.json_schema is None:
            return ()
        try:
            return (await self._aside(partial(model.guides.compile, guide))).relaxed
        except InvalidGuide as error:
            raise guide_error(generation, error) from error

    async def _written(self, model: ChatModel, generation: TextGeneration) -> AsyncGenerator[Output, None]:
        """The engine's outputs."""
        async with self._output_queue(model) as queue:
            job = await self._chat_job(model, generation, queue)
            if isinstance(job, Finish):
                yield job
                return
            model.engine.submit(job)
            async for item in _received(queue):
                yield item

    @asynccontextmanager
    async def _output_queue(self, model: ChatModel | EmbeddingModel) -> AsyncIterator[OutputQueue]:
        """The queue for a generation's outputs. Leaving the block cancels the generation."""
        queue = OutputQueue(loop=asyncio.get_running_loop())
        try:
            yield queue
        finally:
            queue.cancelled = True
            model.engine.wake()

    async def _chat_job(
        self, model: ChatModel, generation: TextGeneration, queue: OutputQueue
    ) -> ChatJob | Finish:
        if generation.guide is None and _chars(generation) <= _INLINE_CHARS:
            return self._prepared(model, generation, queue)
        try:
            return await self._aside(lambda: self._prepared(model, generation, queue))
        except InvalidGuide as error:
            raise guide_error(generation, error) from error

    def _prepared(self, model: ChatModel, generation: TextGeneration, queue: OutputQueue) -> ChatJob | Finish:
        """The job for the engine; a `Finish` if the prefix is already the whole answer."""
        guide = None if generation.guide is None else model.guides.compile(generation.guide)
        sampling = generation.sampling
        prompt = model.prompts.build(generation)
        prefix = model.prompts.prefix(generation)
        done = generation.prefix_tokens
        complete = guide is not None and guide.consume(prefix)
        max_new = (sampling.max_tokens or self._settings.default_max_tokens) - done
        left = min(max_new, model.context_tokens - len(prompt) - len(prefix))
        if complete or (done and left <= 0):
            usage = Usage(prompt_tokens=len(prompt), completion_tokens=done)
            return Finish(reason="stop" if complete else "length", usage=usage)
        return ChatJob(
            queue=queue,
            prompt=np.concatenate((prompt, prefix)),
            plan=SamplingPlan.of(sampling, self._settings),
            seed=sampling.seed,
            stops=sampling.stop,
            max_tokens=left,
            guide=guide,
            rules=TokenRules.of(sampling, model.manifest.eog_token_ids, model.manifest.vocabulary),
            prefix=generation.prefix,
            prefix_ids=len(prefix),
            prefix_tokens=done,
        )

    async def _embedding_job(
        self, model: EmbeddingModel, generation: Generation, queue: OutputQueue
    ) -> EmbeddingJob:
        if generation.kind != "embedding":
            raise InvalidRequest(
                f"model {generation.model!r} is an embedding model: use /v1/embeddings", param="model"
            )
        if not generation.inputs:
            raise InvalidRequest("input is empty; send at least one text", param="input")
        if _chars(generation) <= _INLINE_CHARS:
            return _tokenised(model, generation, queue)
        return await self._aside(lambda: _tokenised(model, generation, queue))

    async def _aside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._prepare, work)


def _with_own_references(generation: TextGeneration) -> TextGeneration:
    """The generation with its schema's references resolved. Raises `InvalidGuide` for an external one."""
    guide = generation.guide
    if guide is None or guide.json_schema is None:
        return generation
    schema = resolve_references(guide.json_schema)
    return generation.model_copy(update={"guide": guide.model_copy(update={"json_schema": schema})})


def _dispose(held: list[ChatModel | EmbeddingModel]) -> None:
    """Stop and free a model; `held` must have the only reference to it. Blocks."""
    held.pop().engine.close()
    release_memory()


async def _received(queue: OutputQueue) -> AsyncIterator[Output]:
    """The engine's outputs up to the `Finish`. Raises an error that the engine puts into the queue."""
    while True:
        item = await queue.items.get()
        if isinstance(item, OrchestraError):
            raise item
        yield item
        if isinstance(item, Finish):
            return


def _chars(generation: Generation) -> int:
    return len(generation.prefix) + sum(map(len, generation.texts))


def _tokenised(model: EmbeddingModel, generation: EmbeddingGeneration, queue: OutputQueue) -> EmbeddingJob:
    inputs = []
    for text in generation.inputs:
        tokens = model.tokenizer.encode_sentence(text)
        if len(tokens) > model.manifest.context_tokens:
            error = ContextTooLong.of(model.manifest.name, len(tokens), model.manifest.context_tokens)
            error.param = "input"
            raise error
        inputs.append(tokens)
    return EmbeddingJob(queue=queue, inputs=inputs)
