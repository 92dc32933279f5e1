"""What can be set of an engine."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class EngineSettings(BaseModel):
    """Limits and sizes of every model that one backend serves.

    Memory for keys and values is reserved by address only and becomes resident as tokens are
    written, so `kv_cache_bytes` bounds what is used and `context_tokens` what one request may use of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(default=0, ge=0, validate_default=True)
    """Threads of one inference call; 0 chooses two, or one on a machine with a single core: more gain
    little on a small model."""
    slots: int = Field(default=16, ge=1)
    """Generations of one model that run at once."""
    max_waiting: int = Field(default=32, ge=0)
    """Generations that may wait for a slot; one more is answered `NodeBusy`."""
    context_tokens: int = Field(default=8192, ge=1)
    """Longest context of a request; the model's own applies where it is shorter."""
    kv_cache_bytes: int = Field(default=1 << 30, ge=1)
    """Bound on the keys and values of all running generations of one model. Memory is taken as tokens are
    written and given back when the generation ends."""
    prefix_cache_bytes: int = Field(default=256 << 20, ge=0)
    """Bound on the keys and values kept for prompts that share a prefix; 0 switches reuse off."""
    prefix_block: int = Field(default=16, ge=2)
    """The grain of prefix reuse in tokens."""
    idle_after_s: float = Field(default=20, gt=0)
    """Without a request for so long, a model gives back the memory that it holds for the next ones."""
    idle_prefix_bytes: int = Field(default=16 << 20, ge=0)
    """What it keeps then of `prefix_cache_bytes`: the prompts used last."""
    prefill_chunk: int = Field(default=128, ge=2)
    """Most prompt tokens computed by one call."""
    prefill_budget: int = Field(default=64, ge=1)
    """Prompt tokens computed between two decode steps; up to twice as many if a prompt ends with them."""
    step_target_s: float = Field(default=0, ge=0, le=10)
    """While prompts wait, steps that read them grow up to four times `prefill_budget`, as long as a step,
    which is the others' wait for their next token, takes no longer than this; embedding moves likewise. 0
    leaves all as it is set: a mixed load on two cores gained nothing from it."""
    default_max_tokens: int = Field(default=512, ge=1)
    default_temperature: float = Field(default=0.2, ge=0, le=2)
    default_top_p: float = Field(default=0.9, gt=0, le=1)
    embedding_batch: int = Field(default=32, ge=1)
    """Most texts embedded by one call."""
    max_failures: int = Field(default=5, ge=1)
    """Failed steps in a row after which the engine stops and stays stopped."""

    @field_validator("threads")
    @classmethod
    def _chosen(cls, threads: int) -> int:
        return threads or min(2, len(os.sched_getaffinity(0)))


class OnnxSettings(EngineSettings):
    """An engine whose models run in onnxruntime."""

    spin_us: int = Field(default=20, ge=0)
    """How long a thread of an inference call spins for its next part before it sleeps; 0 sleeps at once.
    20 bridges the gaps between operators (16 % less time a step alone, 9 % at 8 rows, same CPU), and is
    too short to keep a core from the event loop."""
    providers: tuple[str, ...] = Field(default=("CPUExecutionProvider",), min_length=1)
    """Execution providers in order of preference, as onnxruntime names them."""


class TorchSettings(EngineSettings):
    """An engine whose models run in PyTorch.

    On a GPU keys and values take their memory at once, so every row of `slots` gets an equal share of
    `kv_cache_bytes`, which bounds the context.
    """

    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """What is computed in; `auto` is float16 on a GPU and float32 on a CPU."""
