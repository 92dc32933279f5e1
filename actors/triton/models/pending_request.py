"""A request of a chat model in Triton that waits for its answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from orchestration.errors import OrchestraError
from orchestration.messages import Finish, TextDelta, TokenLogprob

_LOGPROBS = TypeAdapter(tuple[TokenLogprob, ...])


class PendingRequest:
    """The response sender of a request. It sends exactly one last response, from any thread."""

    def __init__(self, pb: Any, sender: Any) -> None:
        self._pb = pb
        self._sender: Any = sender
        """None after the last response: Triton cannot unload a model while one of its senders is alive."""
        self._lock = threading.Lock()

    def gone(self) -> bool:
        """Whether the client cancelled the request or disconnected."""
        sender = self._sender
        return sender is not None and bool(sender.is_cancelled())

    def send(self, pieces: Sequence[TextDelta], finish: Finish | None = None) -> None:
        """Send text; with `finish` as the last response."""
        logprobs = tuple(each for piece in pieces for each in piece.logprobs or ())
        values = {
            "text_output": "".join(piece.text for piece in pieces).encode(),
            "token_count": np.array([sum(piece.tokens for piece in pieces)], np.int32),
            "finish_reason": finish.reason.encode() if finish else b"",
            "usage": finish.usage.model_dump_json().encode() if finish else b"",
            "logprobs": _LOGPROBS.dump_json(logprobs) if logprobs else b"",
        }
        tensors = [
            self._pb.Tensor(name, value if isinstance(value, np.ndarray) else np.array([value], object))
            for name, value in values.items()
        ]
        self._send(self._pb.InferenceResponse(tensors), last=finish is not None)

    def fail(self, error: OrchestraError) -> None:
        """Send an error `<code>: <message>` as the last response, unless it was already sent."""
        kinds = self._pb.TritonError
        code = {499: kinds.CANCELLED, 404: kinds.NOT_FOUND, 503: kinds.UNAVAILABLE}.get(
            error.status, kinds.INVALID_ARG if error.status == 400 else kinds.INTERNAL
        )
        triton_error = kinds(f"{error.code}: {error.message}", code)
        self._send(self._pb.InferenceResponse(error=triton_error), last=True)

    def _send(self, response: Any, *, last: bool) -> None:
        with self._lock:
            if self._sender is None:
                return
            sender = self._sender
            if last:
                self._sender = None
            sender.send(response, flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0)
