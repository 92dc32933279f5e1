"""Settings of an engine."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from orchestration.validation import TextForm


class EngineSettings(BaseModel):
    """Limits and sizes of each model of a backend.

    Memory for keys and values is reserved as address space and becomes resident as tokens are written:
    `kv_cache_bytes` limits the total, `context_tokens` one request's share.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(default=0, ge=0, validate_default=True)
    """Threads of one inference call. 0: two, or one on a machine with a single core."""
    slots: int = Field(default=16, ge=1)
    """Maximum generations of one model in progress."""
    max_waiting: int = Field(default=32, ge=0)
    """Maximum generations that wait for a slot; one more is refused with `node_busy`."""
    context_tokens: int = Field(default=8192, ge=1)
    """Maximum tokens of a prompt and its answer; the model's own limit applies if it is smaller."""
    kv_cache_bytes: int = Field(default=1 << 30, ge=1)
    """Maximum bytes of keys and values of one model's running generations. Memory is allocated as tokens are
    written and freed when the generation ends."""
    prefix_cache_bytes: int = Field(default=256 << 20, ge=0)
    """Maximum bytes of keys and values cached for shared prompt prefixes; 0 disables prefix reuse."""
    prefix_block: int = Field(default=16, ge=2)
    """Block size of the prefix cache in tokens."""
    idle_after_s: float = Field(default=20, gt=0)
    """Idle time after which a model frees the memory that it keeps for further requests."""
    idle_prefix_bytes: int = Field(default=16 << 20, ge=0)
    """Bytes of the prefix cache that an idle model keeps, the most recently used."""
    prefill_chunk: int = Field(default=128, ge=2)
    """Maximum prompt tokens of one inference call."""
    prefill_budget: int = Field(default=64, ge=1)
    """Prompt tokens computed between two decode steps; up to twice as many if that completes a prompt."""
    lookahead: bool = True
    """Whether a generation that decodes alone tries several tokens in a call where its text repeats an
    earlier part. It moves logits as little as company does (0.01). For ONNX Runtime on a CPU, and OpenVINO
    in float32."""
    default_max_tokens: int = Field(default=512, ge=1)
    """Maximum tokens of an answer whose request has no `max_tokens`."""
    default_temperature: float = Field(default=0.2, ge=0, le=2)
    """Temperature of a request without one."""
    default_top_p: float = Field(default=0.9, gt=0, le=1)
    """`top_p` of a request without one."""
    embedding_batch: int = Field(default=32, ge=1)
    """Maximum texts of one embedding call."""
    max_failures: int = Field(default=5, ge=1)
    """Consecutive failed steps after which the engine stops for good."""

    @field_validator("threads")
    @classmethod
    def _chosen(cls, threads: int) -> int:
        return threads or min(2, len(os.sched_getaffinity(0)))


class OnnxSettings(EngineSettings):
    """The backend `onnx`, which runs models with ONNX Runtime in the node's process. Limits are for each
    model."""

    spin_us: int = Field(default=20, ge=0)
    """How long a thread of an inference call spins before it sleeps; 0: not at all. 20 covers the gaps
    between operators (16 % less time per step alone, 9 % at 8 rows, same CPU) without starving the event
    loop."""
    providers: tuple[str, ...] = Field(default=("CPUExecutionProvider",), min_length=1)
    """Execution providers in order of preference, as onnxruntime names them."""


class OpenVinoSettings(EngineSettings):
    """The backend `openvino`, which runs chat models with OpenVINO in the node's process, and embedding
    models with ONNX Runtime. Limits are for each model. The prefix cache has blocks of 32 tokens whatever
    `prefix_block` says."""

    activations: Literal["float32", "int8"] = "float32"
    """The type that products compute with. `float32`: logits differ by less than 0.01 from float64's. `int8`
    rounds activations in blocks of 32: 1.2 to 1.5 times the tokens per second, and the likeliest token of
    SmolLM2 differs once in 30 tokens (perplexity 20.9 instead of 21.0). The rounding also depends on how many
    generations run at once, so that the same request may get another answer in company."""


class TorchSettings(EngineSettings):
    """An engine whose models run in PyTorch.

    On a GPU the memory of keys and values is allocated at once: each slot gets an equal share of
    `kv_cache_bytes`, which limits the context.
    """

    device: Annotated[str, TextForm(r"^(cpu|cuda(:\d+)?)$", "cpu, cuda, or cuda:NUMBER")] = "cpu"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """The computation type. `auto`: float16 on a GPU, float32 on a CPU."""
