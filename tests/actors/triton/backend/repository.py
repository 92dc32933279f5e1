"""Models of `models/` in the repository of a test's server, and backends before it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from actors.backends.base import Backend
from actors.triton.backend.backend import TritonBackend
from actors.triton.backend.settings import TritonSettings
from orchestration.messages import ChatGeneration, ChatMessage, Finish, Generation, TextDelta
from tests.fixtures.triton import RunningTriton

MODELS = Path(__file__).parent / "models"
CHAT = """
backend: "python"
max_batch_size: 0
model_transaction_policy {{ decoupled: true }}
input [
  {{ name: "text_input" data_type: {text} dims: [ 1 ] optional: true }},
  {{ name: "messages" data_type: TYPE_STRING dims: [ 1 ] optional: true }},
  {{ name: "prefix" data_type: TYPE_STRING dims: [ 1 ] optional: true }},
  {{ name: "prefix_tokens" data_type: TYPE_INT32 dims: [ 1 ] optional: true }},
  {{ name: "sampling_parameters" data_type: TYPE_STRING dims: [ 1 ] optional: true }}
]
output [
  {{ name: "text_output" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "token_count" data_type: TYPE_INT32 dims: [ 1 ] }},
  {{ name: "finish_reason" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "usage" data_type: TYPE_STRING dims: [ 1 ] }}
]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""
EMBEDDING = """
backend: "python"
max_batch_size: 4
input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
output [
  { name: "embedding" data_type: TYPE_FP32 dims: [ 2 ] },
  { name: "token_count" data_type: TYPE_INT32 dims: [ 1 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
dynamic_batching { preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 0 }
"""
VLLM = """
backend: "python"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input [
  { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "stream" data_type: TYPE_BOOL dims: [ 1 ] optional: true },
  { name: "exclude_input_in_output" data_type: TYPE_BOOL dims: [ 1 ] optional: true },
  { name: "return_finish_reason" data_type: TYPE_BOOL dims: [ 1 ] optional: true },
  { name: "return_num_input_tokens" data_type: TYPE_BOOL dims: [ 1 ] optional: true },
  { name: "return_num_output_tokens" data_type: TYPE_BOOL dims: [ 1 ] optional: true },
  { name: "sampling_parameters" data_type: TYPE_STRING dims: [ 1 ] optional: true }
]
output [
  { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "finish_reason" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "num_input_tokens" data_type: TYPE_UINT32 dims: [ 1 ] },
  { name: "num_output_tokens" data_type: TYPE_UINT32 dims: [ -1 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
_numbers = itertools.count()


def chat_model(server: RunningTriton, *, text: str = "TYPE_STRING") -> str:
    """A chat model of a new name, in the repository and not loaded."""
    return _written(server, "chat", CHAT.format(text=text))


def embedding_model(server: RunningTriton, *, preferred: int = 2) -> str:
    return _written(server, "embedding", EMBEDDING.replace("[ 2 ]", f"[ {preferred} ]"))


def vllm_model(server: RunningTriton) -> str:
    """One with the tensors of NVIDIA's vLLM backend, which says again what it is asked."""
    return _written(server, "vllm", VLLM)


def _written(server: RunningTriton, kind: str, config: str) -> str:
    name = f"{kind}-{next(_numbers)}"
    folder = server.repository / name
    (folder / "1").mkdir(parents=True)
    shutil.copy(MODELS / f"{kind}.py", folder / "1" / "model.py")
    (folder / "config.pbtxt").write_text(config)
    return name


@asynccontextmanager
async def backend_for(server: RunningTriton, *models: str, **settings: Any) -> AsyncIterator[TritonBackend]:
    """A started backend that serves `models`; they stay loaded at the end."""
    said = {"url": server.url, "metrics_url": server.metrics_url, "models": {name: name for name in models}}
    backend = TritonBackend(TritonSettings.model_validate(said | {"watch_s": 0.2} | settings))
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


def saying(model: str, script: str, **more: Any) -> Generation:
    """A chat whose last message is `script`."""
    message = ChatMessage(role="user", content=script)
    return ChatGeneration(id=f"test.{next(_numbers)}", model=model, messages=(message,), **more)


async def answered(backend: Backend, generation: Generation) -> tuple[str, Finish]:
    """The whole text, and the end."""
    outputs = [output async for output in backend.generate(generation)]
    finish = outputs[-1]
    assert isinstance(finish, Finish)
    return "".join(output.text for output in outputs if isinstance(output, TextDelta)), finish
