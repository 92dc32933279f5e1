"""Parses the input tensors of a chat model in Triton. See `triton_models/llm`."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from orchestration.errors import InvalidRequest
from orchestration.messages import ChatGeneration, CompletionGeneration, TextGeneration
from orchestration.validation import first_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    generation: TextGeneration
    stream: bool
    """Whether each output is its own response, instead of one response in all."""


class Tensors:
    """The inputs of one request: optional tensors of one element each. `pb` is Triton's module."""

    def __init__(self, pb: Any, request: Any) -> None:
        self._pb = pb
        self._request = request

    def value(self, name: str) -> Any:
        """The element of an input, None if missing."""
        tensor = self._pb.get_input_tensor_by_name(self._request, name)
        values = None if tensor is None else tensor.as_numpy().ravel()
        return None if values is None or not len(values) else values[0]

    def text(self, name: str) -> str | None:
        value = self.value(name)
        if value is None:
            return None
        try:
            return str(value.decode())
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{name} is not UTF-8", param=name) from error

    def json(self, name: str, kind: type) -> Any:
        """The JSON in an input, which must be a `kind`; an empty `kind` if missing."""
        text = self.text(name)
        try:
            value = json.loads(text) if text else kind()
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{name} is not JSON: {error}", param=name) from error
        if not isinstance(value, kind):
            raise InvalidRequest(f"{name} must be a JSON {kind.__name__}, not {value!r:.40}", param=name)
        return value


def parse_request(tensors: Tensors, *, model: str, number: int) -> ChatRequest:
    """The request of the tensors. Raises `InvalidRequest`, which names the input."""
    prompt, sampling = tensors.text("text_input"), tensors.json("sampling_parameters", dict)
    messages = tensors.json("messages", list)
    talks = tensors.value("messages") is not None
    if talks == (prompt is not None):
        raise InvalidRequest("send either text_input or messages", param="messages")
    prefix_tokens, stream = tensors.value("prefix_tokens"), tensors.value("stream")
    try:
        kind = ChatGeneration if talks else CompletionGeneration
        generation = kind.model_validate(
            {
                "id": f"triton.{number}",
                "model": model,
                **({"messages": messages} if talks else {"prompt": prompt}),
                "guide": sampling.pop("guide", None),
                "sampling": sampling,
                "continuation": {
                    "text": tensors.text("prefix") or "",
                    "tokens": 0 if prefix_tokens is None else int(prefix_tokens),
                },
            }
        )
    except ValidationError as error:
        problem = first_problem(error)
        if problem.path == ("continuation", "tokens"):  # the input has another name
            problem = replace(problem, path=("prefix_tokens",))
        raise InvalidRequest(str(problem), param=problem.where) from error
    return ChatRequest(generation=generation, stream=stream is None or bool(stream))
