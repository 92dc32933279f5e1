"""Reads the responses of a Triton model as the outputs of a generation."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from tritonclient.grpc import InferResult
from tritonclient.utils import np_to_triton_dtype

from actors.backends.base import Output
from actors.triton.backend.health import ModelHealth
from actors.triton.backend.requests import chat_inputs, embedding_inputs
from actors.triton.backend.settings import TritonSettings
from orchestration.errors import BackendFailed, InvalidRequest
from orchestration.messages import (
    EmbeddingGeneration,
    Finish,
    FinishReason,
    TextDelta,
    TextGeneration,
    TokenLogprob,
    Usage,
    Vectors,
)

_LOGPROBS = TypeAdapter(tuple[TokenLogprob, ...])


async def stream_text(
    health: ModelHealth, generation: TextGeneration, settings: TritonSettings
) -> AsyncGenerator[Output, None]:
    """The outputs of a chat or a completion. Closing it cancels the request on the server."""
    reader = ResponseReader(generation, own=health.model.own)
    limit = settings.first_token_timeout_s
    with health.open_stream(chat_inputs(health.model, generation)) as stream:
        while (result := await health.next(stream, limit)) is not None:
            piece = reader.take(result)
            if piece is not None:
                limit = settings.token_timeout_s
                yield piece
    yield reader.finish()


async def stream_vectors(
    health: ModelHealth, generation: EmbeddingGeneration, settings: TritonSettings
) -> AsyncGenerator[Output, None]:
    """The vectors of all inputs, in batches of the model's maximum size."""
    if not generation.inputs:
        raise InvalidRequest("input is empty; send at least one text", param="input")
    tokens = 0
    for index in range(0, len(generation.inputs), health.model.batch):
        texts = generation.inputs[index : index + health.model.batch]
        with health.open_stream(embedding_inputs(texts)) as stream:
            result = await health.next(stream, settings.first_token_timeout_s)
            while result is not None and await health.next(stream, settings.token_timeout_s) is not None:
                pass  # read to the end, so that it is not cancelled
        if result is None:
            raise BackendFailed(f"model {generation.model!r} ended without an answer")
        vectors = _array(result, "embedding", np.dtype("<f4"), generation.model)
        if vectors is None or vectors.ndim != 2 or len(vectors) != len(texts):
            shape = None if vectors is None else list(vectors.shape)
            raise BackendFailed(f"model {generation.model!r} returned vectors {shape} for {len(texts)} texts")
        counts = _array(result, "token_count", np.dtype("<i4"), generation.model)
        tokens += 0 if counts is None else int(counts.sum())
        yield Vectors(
            index=index, vectors=tuple(base64.b64encode(vector.tobytes()).decode() for vector in vectors)
        )
    yield Finish(reason="stop", usage=Usage(prompt_tokens=tokens))


class ResponseReader:
    """Reads the responses of one chat or completion."""

    __slots__ = ("_generation", "_own", "_reason", "_tokens", "_usage")

    def __init__(self, generation: TextGeneration, *, own: bool) -> None:
        self._generation = generation
        self._own = own
        self._reason = ""
        self._tokens = 0
        self._usage: Usage | None = None

    def take(self, result: InferResult) -> TextDelta | None:
        """The text of a response, if any. Raises `BackendFailed` for an invalid response."""
        text = self._text(result, "text_output")
        counts = _array(result, "token_count", np.dtype("<i4"), self._generation.model)
        tokens = int(counts[0]) if counts is not None and len(counts) else int(bool(text) or not self._own)
        reason = self._text(result, "finish_reason")
        self._reason = self._reason if reason in ("", "None") else reason  # vLLM sends "None" until the last
        usage, logprobs = self._text(result, "usage"), self._text(result, "logprobs")
        try:
            if usage:
                self._usage = Usage.model_validate_json(usage)
            read = _LOGPROBS.validate_json(logprobs) if logprobs else None
        except ValidationError as error:
            raise self._malformed(
                f"a usage or logprobs that cannot be read: {error.errors()[0]['msg']}"
            ) from error
        if not self._own:
            tokens = self._counted(result) or tokens
        if not text and not tokens:
            return None
        self._tokens += tokens
        return TextDelta(text=text, tokens=tokens, logprobs=read or None)

    def finish(self) -> Finish:
        """The finish. Raises `BackendFailed` if the answer ended without a reason."""
        if self._reason not in ("stop", "length"):
            if self._own or self._reason:
                cause = self._reason or "no finish reason"
                raise BackendFailed(f"model {self._generation.model!r} ended its answer with {cause}")
            self._reason = "stop"  # old versions of vLLM's backend send no reason
        reason: FinishReason = "length" if self._reason == "length" else "stop"
        prefix_tokens = self._generation.prefix_tokens
        usage = self._usage or Usage(completion_tokens=self._tokens + prefix_tokens, estimated=True)
        return Finish(reason=reason, usage=usage)

    def _counted(self, result: InferResult) -> int:
        """The tokens of this response as reported by vLLM's backend, 0 if not reported. Its prompt tokens
        include what another node wrote."""
        read, written = result.as_numpy("num_input_tokens"), result.as_numpy("num_output_tokens")
        if read is None or written is None or not (len(read) and len(written)):
            return 0
        prefix_tokens = self._generation.prefix_tokens
        before = prefix_tokens if self._usage is None else self._usage.completion_tokens
        self._usage = Usage(
            prompt_tokens=max(0, int(read[0]) - prefix_tokens), completion_tokens=before + int(written[0])
        )
        return int(written[0])

    def _text(self, result: InferResult, name: str) -> str:
        values = _array(result, name, np.dtype(object), self._generation.model)
        if values is None or not len(values):
            return ""
        try:
            return str(values.flat[0].decode())
        except UnicodeDecodeError as error:
            raise self._malformed(f"a {name} that is not UTF-8") from error

    def _malformed(self, what: str) -> BackendFailed:
        return BackendFailed(f"model {self._generation.model!r} returned {what}")


def _array(result: InferResult, name: str, dtype: np.dtype[Any], model: str) -> np.ndarray[Any, Any] | None:
    """An output tensor, None if missing. Raises `BackendFailed` for another type."""
    values: np.ndarray[Any, Any] | None = result.as_numpy(name)
    if values is not None and values.dtype != dtype:
        actual, expected = np_to_triton_dtype(values.dtype), np_to_triton_dtype(dtype)
        raise BackendFailed(f"model {model!r} returned {name} of type {actual}, expected {expected}")
    return values
