"""A client of a Triton server over gRPC: tritonclient with timeouts and Orchestra's errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import InferInput, InferResult, model_config_pb2, service_pb2
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from actors.runtime.envelope import current_envelope
from actors.triton.backend.errors import ServerGone, from_exception, from_text
from actors.triton.backend.settings import TritonSettings
from orchestration.errors import BackendFailed, DeadlineExceeded, Unavailable

T = TypeVar("T")

MAJOR = "2."
"""Supported versions of tritonserver (KServe v2 over gRPC)."""
EXPLICIT = "model_repository"
READY, LOADING, UNLOADING = "READY", "LOADING", "UNLOADING"
_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # By default gRPC waits up to 120 s before it reconnects to a restarted server.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),
]


class TritonClient:
    """Use it in the event loop that made it. All methods raise only `OrchestraError`s."""

    def __init__(self, settings: TritonSettings) -> None:
        self.host = settings.host
        self._settings = settings
        self._client = InferenceServerClient(settings.host, ssl=settings.secure, channel_args=_CHANNEL)

    async def close(self) -> None:
        await self._client.close()

    async def version(self) -> str:
        """The server's version. Raises `ServerGone`, and `BackendFailed` for an unsupported server."""
        response = await self._quick("", self._client.get_server_metadata)
        if not response.version.startswith(MAJOR) or EXPLICIT not in response.extensions:
            raise BackendFailed(
                f"{self.host} is {response.name or 'a server'} {response.version}; Orchestra needs {MAJOR}x"
            )
        return str(response.version)

    async def index(self) -> dict[str, str]:
        """The state of each model in the repository, by name: `READY` if any version is, "" if never
        loaded."""
        response = await self._quick("", self._client.get_model_repository_index)
        found: dict[str, str] = {}
        for model in response.models:
            if found.get(model.name) != READY:
                found[model.name] = model.state
        return found

    async def metadata(self, model: str) -> service_pb2.ModelMetadataResponse:
        """The tensors of a loaded model."""
        return await self._quick(model, self._client.get_model_metadata, model)

    async def config(self, model: str) -> model_config_pb2.ModelConfig:
        """The configuration of a loaded model, as completed by Triton."""
        return (await self._quick(model, self._client.get_model_config, model)).config

    async def statistics(self, model: str) -> service_pb2.ModelStatistics:
        """The statistics of a loaded model since its load."""
        return (await self._quick(model, self._client.get_inference_statistics, model)).model_stats[0]

    async def load(self, model: str, config: str | None = None) -> None:
        """Load a model, with the JSON `config` instead of the repository's if given. Returns when it is
        ready."""
        limit = self._settings.load_timeout_s
        await self._ask(model, self._client.load_model(model, config=config, client_timeout=limit), limit)

    async def unload(self, model: str) -> None:
        """Unload a model and its dependents. Returns at once; running requests are finished first."""
        await self._quick(model, self._client.unload_model, model, unload_dependents=True)

    def stream(self, model: str, inputs: Sequence[InferInput], timeout_s: float | None) -> ResponseStream:
        """Send a request, which the server ends after `timeout_s` with `DeadlineExceeded`.

        It gets its own gRPC stream, because metadata and cancellation are per stream. Also works for models
        with a single response.
        """

        async def once() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": model, "inputs": list(inputs)}

        call = self._client.stream_infer(once(), stream_timeout=timeout_s, headers=_trace())
        return ResponseStream(self.host, model, call)

    async def _quick(self, model: str, method: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
        limit = self._settings.connect_timeout_s
        return await self._ask(model, method(*args, client_timeout=limit, **more), limit)

    async def _ask(self, model: str, call: Awaitable[T], limit_s: float | None = None) -> T:
        """Await a call. With `limit_s` a timeout is reported as the server's failure."""
        try:
            return await call
        except (InferenceServerException, grpc.RpcError) as error:
            failure = from_exception(self.host, model, error)
            if limit_s is not None and isinstance(failure, DeadlineExceeded):
                failure = ServerGone(f"{self.host} did not answer within {limit_s:g} s")
            raise failure from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # The channel was closed during the call, which gRPC reports as a cancellation.
            raise Unavailable(f"the connection to {self.host} was closed") from None


class ResponseStream:
    """The responses to one request."""

    __slots__ = ("_call", "_ended", "_host", "_model")

    def __init__(self, host: str, model: str, call: Any) -> None:
        self._host = host
        self._model = model
        self._call = call
        self._ended = False

    async def next(self) -> InferResult | None:
        """The next response, None after the last. Raises `OrchestraError`, and `CancelledError` after
        `cancel`."""
        try:
            result, error = await anext(self._call)
        except StopAsyncIteration:
            self._ended = True
            return None
        except grpc.RpcError as error:
            self._ended = True
            raise from_exception(self._host, self._model, error) from error
        if error is not None:
            self._ended = True  # an error is a request's last response
            raise from_text(self._host, self._model, error.message() or "")
        return result

    def cancel(self) -> None:
        """Cancel the request; the server sees it within a step of the model. No effect after the end.

        Triton 2.51 may never let go of a model whose stream is cancelled just after its end, and then takes
        all of its exit timeout to stop.
        """
        if not self._ended:
            self._call.cancel()


def _trace() -> dict[str, str] | None:
    """Headers that make Triton's spans children of ours."""
    parent = current_envelope.get().trace
    return {"traceparent": parent} if parent else None
