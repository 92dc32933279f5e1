"""Maps Triton's errors to those of `orchestration.errors`.

Texts and codes are those of tritonserver 2.51. In a stream an error has no code; Orchestra's own models begin
the text with an error code of Orchestra: `context_length_exceeded: the prompt has …`.
"""

from __future__ import annotations

import re

import grpc
from tritonclient.utils import InferenceServerException

from orchestration.errors import (
    BackendFailed,
    DeadlineExceeded,
    NodeBusy,
    OrchestraError,
    Unavailable,
    from_body,
)
from orchestration.messages import ErrorBody

_MAX_TEXT = 300
_CODED = re.compile(r"([a-z_]+): (.+)", re.DOTALL)
_NOT_LOADED = ("has no available versions", "is not found", "is not ready")
_STUB_DEAD = ("is not healthy", "Stub process")
_NO_MEMORY = ("out of memory", "outofmemory", "bad_alloc", "cannot allocate memory", "failed to allocate")
_FULL = ("exceeds maximum queue size", "request timeout expired")
_DISAGREES = (
    "data-type is",
    "unexpected shape",
    "unexpected inference input",
    "inputs but got",
    "byte size",
    "batch-size must be",
)


class ServerGone(Unavailable):
    """No server answers at the address."""


class NotLoaded(Unavailable):
    """The server is alive, but the model is not loaded (yet)."""


class ModelDead(BackendFailed):
    """The model's process died or hangs, although the server reports the model as ready."""


def from_exception(host: str, model: str, error: InferenceServerException | grpc.RpcError) -> OrchestraError:
    """The error for an exception of tritonclient, or of gRPC in a stream."""
    if isinstance(error, InferenceServerException):
        code, text = str(error.status() or "").removeprefix("StatusCode."), error.message() or ""
    else:
        code, text = error.code().name, error.details() or ""
    return from_text(host, model, text, code)


def from_text(host: str, model: str, text: str, code: str = "") -> OrchestraError:
    """The error for a message with gRPC's `code`; streams have no code."""
    summary, lower = shorten(text), text.lower()
    if all(sign in text for sign in _STUB_DEAD):  # also if one of our models reports a model that it calls
        return ModelDead(f"model {model!r} at {host} died: {summary}")
    coded = _CODED.fullmatch(text)
    if coded is not None:
        known = from_body(ErrorBody(code=coded[1], message=coded[2]))
        if known.code == coded[1]:
            return known
    if code == "UNAVAILABLE" and not any(sign in lower for sign in (*_FULL, *_NOT_LOADED)):
        return ServerGone(f"no Triton server answers at {host}: {summary}")
    if code == "DEADLINE_EXCEEDED":
        return DeadlineExceeded(f"{host} did not answer before the deadline")
    if any(sign in lower for sign in _FULL):
        return NodeBusy(f"the queue of model {model!r} at {host} is full: {summary}", retry_after_s=0.5)
    if any(sign in lower for sign in _NOT_LOADED):
        return NotLoaded(f"model {model!r} is not loaded at {host}: {summary}", retry_after_s=1)
    if any(sign in lower for sign in _NO_MEMORY):
        return BackendFailed(f"model {model!r} at {host} is out of memory: {summary}")
    if any(sign in lower for sign in _DISAGREES):
        return BackendFailed(f"the tensors of model {model!r} at {host} have changed: {summary}")
    if code == "UNIMPLEMENTED":
        return BackendFailed(f"{host} is not a Triton server that Orchestra supports: {summary}")
    if code == "CANCELLED":
        return Unavailable(f"{host} cancelled the request: {summary}")
    return BackendFailed(f"model {model!r} at {host} failed: {summary}" if model else f"{host}: {summary}")


def shorten(text: str) -> str:
    """One line of at most 300 characters."""
    text = " ".join(text.split())
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
