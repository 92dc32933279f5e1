"""A backend that sends generations to a server with the OpenAI API, over aiohttp.

aiohttp because httpx costs seven times the CPU per request at 32 at once (2.2 ms against 0.3 ms).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from yarl import URL

from actors.backends.base import KEEP_ALIVE, Backend, Output, host_hardware
from actors.backends.openai.answer_time import AnswerTime
from actors.backends.openai.backoff import Backoff
from actors.backends.openai.client import UpstreamClient
from actors.backends.openai.continuation import (
    ContinuationFilter,
    ContinuationMethod,
    Prefill,
    TextMismatch,
    continuation_methods,
    continuation_request,
    detect_prefill,
)
from actors.backends.openai.errors import UnsupportedRoles, Upstream
from actors.backends.openai.fields import parse_embeddings
from actors.backends.openai.models import model_cards, parse_models
from actors.backends.openai.reader import CompletionReader
from actors.backends.openai.requests import embedding_body, generation_body
from actors.backends.openai.settings import OpenAISettings
from actors.backends.openai.sse import SseParser
from actors.backends.openai.token_count import TokenRatio
from orchestration.chat_roles import ChatRoles
from orchestration.errors import (
    SERVER_LIMITS,
    BackendFailed,
    CannotContinue,
    ContextTooLong,
    InvalidRequest,
    OrchestraError,
    UnknownModel,
)
from orchestration.messages import (
    EmbeddingGeneration,
    Finish,
    Generation,
    Hardware,
    JoinedText,
    ModelCard,
    TextDelta,
    TextGeneration,
    Usage,
    Vectors,
)

log = logging.getLogger(__name__)

_DONE = b"[DONE]"
_BLANK = b"\xef\xbb\xbf \t\r\n"
_NO_STREAM = (b"{", b"[", b"<")
"""Beginnings that no line of a stream has: JSON or HTML, regardless of the content type."""
_PARSE_IN_THREAD_BYTES = 1 << 18
"""Size from which JSON is parsed in a thread; this size takes about 2 ms."""


class OpenAIBackend(Backend):
    """Serves the models of one upstream. `start` reads the key and the upstream's list of models."""

    name = "openai"
    calls_tools = True

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._chat_url = URL(f"{settings.base_url}/chat/completions")
        self._completion_url = URL(f"{settings.base_url}/completions")
        self._embedding_url = URL(f"{settings.base_url}/embeddings")
        self._models_url = URL(f"{settings.base_url}/models")
        self._served: dict[str, tuple[str, ModelCard]] = {}
        self._prefills: dict[str, Prefill] = {}
        self._roles: dict[str, ChatRoles] = {}
        """Accepted chat roles of models that refused a conversation, by upstream name."""
        self._rates: dict[str, TokenRatio] = {}
        self._times: dict[str, AnswerTime] = {}
        self._connection: UpstreamClient | None = None
        self._backoff = Backoff(settings.max_backoff_s)

    def __repr__(self) -> str:
        return f"OpenAIBackend(base_url={self._settings.base_url!r}, models={sorted(self._served)})"

    async def start(self, memory_bytes: int = 0) -> None:
        """Read the key and the list of models; `memory_bytes` is ignored. Raises `Unavailable` if the
        upstream cannot be reached, `BackendFailed` if the key is missing or refused, `UnknownModel` if no
        model can be served."""
        await self.close()
        settings = self._settings
        upstream = Upstream(
            host=settings.host, api_key_env=settings.api_key_env, api_key=_key(settings.api_key_env)
        )
        connection = UpstreamClient(settings, upstream)
        try:
            answer = await connection.get_or_none(self._models_url)
            entries = None if answer is None else parse_models(answer, str(self._models_url))
            self._served = model_cards(settings, entries, str(self._models_url))
            self._prefills = {
                served: detect_prefill((entries or {}).get(name, {}), settings)
                for served, (name, _) in self._served.items()
            }
        except BaseException:
            await connection.close()
            raise
        self._connection = connection

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @property
    def models(self) -> tuple[ModelCard, ...]:
        return tuple(card for _, card in self._served.values())

    @property
    def hardware(self) -> Hardware:
        """This machine's cores and memory; those of the upstream are unknown."""
        return host_hardware(f"openai {self._settings.host}")

    @property
    def slots(self) -> int:
        return self._settings.slots

    async def generate(self, generation: Generation) -> AsyncGenerator[Output, None]:
        outputs = self._embed(generation) if generation.kind == "embedding" else self._stream(generation)
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    yield output
        except SERVER_LIMITS as error:
            self._backoff.begin(generation.model, error)
            raise
        self._backoff.answered()

    def _stream(self, generation: TextGeneration) -> AsyncGenerator[Output, None]:
        connection, name = self._of(generation)
        if generation.prefix:
            return self._go_on(connection, name, generation)
        return self._read(connection, name, generation)

    async def _go_on(
        self, connection: UpstreamClient, name: str, generation: TextGeneration
    ) -> AsyncGenerator[Output, None]:
        """Continue what another node began, by the first method that works. Raises `CannotContinue`."""
        prefill = self._prefills.get(generation.model, "no")
        for way in continuation_methods(generation, prefill):
            request = continuation_request(generation, way).model_copy(update={"streamed": True})
            requests_continuation = way is ContinuationMethod.PREFILL and prefill == "continue_final_message"
            seam = ContinuationFilter(generation, way)
            outputs = self._read(connection, name, request, requests_continuation=requests_continuation)
            shown = False
            try:
                async with aclosing(outputs):
                    async for output in outputs:
                        if isinstance(output, Finish) and (rest := seam.rest()) is not None:
                            yield rest
                        passed = seam.take(output)
                        shown = shown or isinstance(passed, TextDelta)
                        yield passed
                return
            except TextMismatch:
                log.info(
                    "%s generated another text for %s than the prefix", self._settings.host, generation.id
                )
            except InvalidRequest as error:
                if shown or way is ContinuationMethod.AGAIN or isinstance(error, ContextTooLong):
                    raise
                if way is ContinuationMethod.PREFILL:
                    self._prefills[generation.model] = "no"
                log.info("%s does not continue a message: %s", self._settings.host, error.message)
        raise CannotContinue(f"{self._settings.host} cannot continue the answer that another node began")

    async def _read(
        self,
        connection: UpstreamClient,
        name: str,
        generation: TextGeneration,
        *,
        requests_continuation: bool = False,
    ) -> AsyncGenerator[Output, None]:
        """The answer. If the model refuses the roles of the messages, they are converted and sent again; the
        accepted form is remembered. An answer that the caller wants whole is requested so if it takes little
        time, and as a stream if that is refused. `requests_continuation`: see `generation_body`."""
        messages = generation.messages if generation.kind == "chat" else ()
        known = roles = self._roles.get(name, ChatRoles())
        times = self._times.setdefault(generation.model, AnswerTime())
        streamed = generation.streamed or times.streams(generation.sampling.max_tokens)
        refusal: InvalidRequest | None = None
        while True:
            fitting, fit = generation, roles.fit(messages)
            if fit is not messages:
                fitting = generation.model_copy(update={"messages": fit})
            body = generation_body(
                fitting, name, self._settings, streamed=streamed, requests_continuation=requests_continuation
            )
            outputs = self._answered(connection, generation, body, times)
            shown = False
            try:
                async with aclosing(outputs):
                    async for output in outputs:
                        shown = shown or output is not KEEP_ALIVE
                        yield output
            except UnsupportedRoles as error:
                less = roles.alternative(repeats=error.repeats, messages=messages)
                if shown or less is None:
                    raise
                roles = less
                continue
            except InvalidRequest as error:
                if streamed or shown or isinstance(error, ContextTooLong):
                    raise
                streamed, refusal = True, error
                continue
            if refusal is not None:
                log.info("%s answers %s in streams only: %s", self._settings.host, name, refusal.message)
                times.streams_only = True
            if roles is not known:
                log.info("model %s of %s takes %s", name, connection.upstream.host, roles)
                self._roles[name] = roles
            return

    async def _answered(
        self, connection: UpstreamClient, generation: TextGeneration, body: bytes, times: AnswerTime
    ) -> AsyncGenerator[Output, None]:
        began = time.monotonic()
        settings = self._settings
        url = self._chat_url if generation.kind == "chat" else self._completion_url
        rate = self._rates.setdefault(generation.model, TokenRatio())
        reader = CompletionReader(connection.upstream, generation, rate)
        parser = SseParser(settings.max_line_bytes)
        answer = await connection.post(url, body, generation)
        try:
            block = await answer.block()
            if not answer.streamed or block.lstrip(_BLANK)[:1] in _NO_STREAM:
                # one body: requested so, from a server without streaming, or an error
                piece = reader.take(block + await answer.whole())
                finish = reader.finish(done=True)
                times.learn(time.monotonic() - began, finish.usage.completion_tokens)
                if piece is not None:
                    yield piece
                yield finish
                return
            done = False
            while True:
                pieces: list[TextDelta] = []
                error: OrchestraError | None = None
                for data in parser.feed(block) if block else parser.flush():
                    if data.strip() == _DONE:
                        done = True
                        break
                    try:
                        piece = reader.take(data)
                    except OrchestraError as failure:
                        error = failure
                        break
                    if piece is not None:
                        pieces.append(piece)
                for delta in joined(pieces):
                    yield delta
                if error is not None:
                    raise error
                if done or not block:
                    break
                answer.flows = reader.started
                if not pieces:
                    yield KEEP_ALIVE
                block = await answer.block(ended=reader.ended)
            await answer.drain()
            finish = reader.finish(done=done)
            times.learn(time.monotonic() - began, finish.usage.completion_tokens)
            yield finish
        finally:
            answer.close()

    async def _embed(self, generation: EmbeddingGeneration) -> AsyncGenerator[Output, None]:
        connection, name = self._of(generation)
        usage = Usage()
        size = self._settings.embedding_batch
        for index in range(0, len(generation.inputs), size):
            inputs = generation.inputs[index : index + size]
            answer = await connection.post(
                self._embedding_url, embedding_body(inputs, name, generation.extra), generation
            )
            try:
                body = await answer.whole()
            finally:
                answer.close()
            if len(body) > _PARSE_IN_THREAD_BYTES:
                read = await asyncio.to_thread(parse_embeddings, connection.upstream, body, len(inputs))
            else:
                read = parse_embeddings(connection.upstream, body, len(inputs))
            vectors, used = read
            usage += used
            yield Vectors(index=index, vectors=vectors)
        yield Finish(reason="stop", usage=usage)

    def _of(self, generation: Generation) -> tuple[UpstreamClient, str]:
        """The client and the upstream's model name. Raises the server's refusal during a backoff."""
        if self._connection is None:
            raise BackendFailed(f"the backend for {self._settings.base_url} is not started")
        served = self._served.get(generation.model)
        if served is None:
            raise UnknownModel.of(generation.model, list(self._served))
        self._backoff.check(generation.model)
        return self._connection, served[0]


def joined(pieces: list[TextDelta]) -> list[TextDelta]:
    """The pieces of one block, which arrived together, as few deltas as possible. In a delta the reasoning
    comes before the text."""
    if len(pieces) < 2:
        return pieces
    deltas: list[JoinedText] = []
    for piece in pieces:
        if not deltas or (piece.reasoning and deltas[-1].text):
            deltas.append(JoinedText())
        deltas[-1].add(piece)
    return [delta.delta for delta in deltas]


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise BackendFailed(f"environment variable {variable}, named by api_key_env, is not set")
    if not key.isascii() or not key.isprintable():
        raise BackendFailed(f"environment variable {variable} has characters that are not allowed in a key")
    return key
