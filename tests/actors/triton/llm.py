"""The template `triton_models/llm` in a repository of the tests, and a plain client of it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import tritonclient.grpc.aio as grpc
from tritonclient.grpc import InferInput

from actors.installation.data_files import data_folder

DEADLINE_S = 120.0


def write_llm(
    repository: Path,
    name: str,
    folder: Path,
    *,
    runtime: str = "onnxruntime",
    more: str = "",
    **settings: Any,
) -> None:
    """Write the model; `more` is appended to its code, `settings` become parameters."""
    template = data_folder("triton_models") / "llm"
    values = {"name": name, "folder": str(folder), "device": "kind: KIND_CPU", "runtime": runtime}
    text = Template((template / "config.pbtxt").read_text()).substitute(values)
    for key, value in settings.items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(text)
    code = repository / name / "1" / "model.py"
    shutil.copyfile(template / "1" / "model.py", code)
    code.write_text(code.read_text() + more)


@dataclass(slots=True)
class Told:
    """All responses of one request."""

    pieces: list[str] = field(default_factory=list)
    tokens: int = 0
    reason: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    logprobs: list[Any] = field(default_factory=list)
    finals: int = 0
    error: str = ""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def _bytes(name: str, value: bytes) -> InferInput:
    tensor = InferInput(name, [1], "BYTES")
    tensor.set_data_from_numpy(np.array([value], object))
    return tensor


def inputs(text: str | None = None, **said: Any) -> list[InferInput]:
    """Greedy unless said otherwise; `prompt`, `prefix`, `prefix_tokens`, `stream` and `raw` (bytes of inputs
    by name) are inputs, everything else is a sampling parameter."""
    made: list[InferInput] = []
    if text is not None:
        made.append(_bytes("messages", json.dumps([{"role": "user", "content": text}]).encode()))
    for name, tensor in (("prompt", "text_input"), ("prefix", "prefix")):
        if name in said:
            made.append(_bytes(tensor, said.pop(name).encode()))
    made += [_bytes(name, value) for name, value in said.pop("raw", {}).items()]
    for name, datatype, dtype in (("prefix_tokens", "INT32", np.int32), ("stream", "BOOL", np.bool_)):
        if name in said:
            tensor = InferInput(name, [1], datatype)
            tensor.set_data_from_numpy(np.array([said.pop(name)], dtype))
            made.append(tensor)
    if not any(each.name() == "sampling_parameters" for each in made):
        made.append(_bytes("sampling_parameters", json.dumps({"temperature": 0, **said}).encode()))
    return made


def _final(result: Any) -> bool:
    return bool(result.get_response().parameters["triton_final_response"].bool_param)


async def responses(
    client: grpc.InferenceServerClient, model: str, tensors: list[InferInput]
) -> AsyncGenerator[tuple[Any, Any], None]:
    """Results and errors of one request, to its final response. Closing it early cancels the request."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": model, "inputs": tensors, "enable_empty_final_response": True}

    stream = client.stream_infer(requests())
    ended = False
    try:
        async for result, error in stream:
            ended = error is not None or _final(result)
            yield result, error
    finally:
        # Not when it has ended: Triton 2.51 may keep a model in memory for ever when that comes too late.
        if not ended:
            stream.cancel()


async def ask(client: grpc.InferenceServerClient, model: str, text: str | None = None, **said: Any) -> Told:
    """One request to its end."""
    told = Told()
    async with asyncio.timeout(DEADLINE_S):
        async for result, error in responses(client, model, inputs(text, **said)):
            if error is not None:
                told.error = error.message()
                continue
            told.finals += _final(result)
            told.pieces.append(result.as_numpy("text_output")[0].decode())
            told.tokens += int(result.as_numpy("token_count")[0])
            told.reason = result.as_numpy("finish_reason")[0].decode()
            if usage := result.as_numpy("usage")[0]:
                told.usage = json.loads(usage)
            if logprobs := result.as_numpy("logprobs")[0]:
                told.logprobs += json.loads(logprobs)
    return told
