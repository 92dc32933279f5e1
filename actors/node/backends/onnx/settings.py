"""What can be set of the ONNX backend."""

from __future__ import annotations

import os
from dataclasses import dataclass

from orchestration.errors import InvalidRequest


def _default_threads() -> int:
    """Two, or one on a machine with a single core: more threads gain little on a small model."""
    return min(2, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxSettings:
    """Limits and sizes of every model that one backend serves, checked at construction.

    Memory for keys and values is reserved by address only and becomes resident as tokens are
    written, so `kv_cache_bytes` bounds what is used and `context_tokens` what one request may use of it.
    """

    threads: int = 0
    """Threads of one inference call; 0 chooses two, or one on a single core."""
    spin_us: int = 20
    """How long a thread of an inference call spins for its next part before it sleeps; 0 sleeps at once.
    20 bridges the gaps between operators (16 % less time a step alone, 9 % at 8 rows, same CPU), and is
    too short to keep a core from the event loop."""
    slots: int = 16
    """Generations of one model that run at once."""
    max_waiting: int = 32
    """Generations that may wait for a slot; one more is answered `NodeBusy`."""
    context_tokens: int = 8192
    """Longest context of a request; the model's own applies where it is shorter."""
    kv_cache_bytes: int = 1 << 30
    """Bound on the keys and values of all running generations of one model."""
    prefix_cache_bytes: int = 256 << 20
    """Bound on the keys and values kept for prompts that share a prefix; 0 switches reuse off."""
    prefix_block: int = 16
    """The grain of prefix reuse in tokens."""
    prefill_chunk: int = 128
    """Most prompt tokens computed by one call."""
    prefill_budget: int = 64
    """Prompt tokens computed between two decode steps; up to twice as many if a prompt ends with them."""
    default_max_tokens: int = 512
    default_temperature: float = 0.2
    default_top_p: float = 0.9
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    """Execution providers in order of preference, as onnxruntime names them."""
    embedding_batch: int = 32
    """Most texts embedded by one call."""
    max_failures: int = 5
    """Failed steps in a row after which the engine stops and stays stopped."""

    def __post_init__(self) -> None:
        for name in ("slots", "context_tokens", "kv_cache_bytes", "default_max_tokens", "embedding_batch"):
            self._at_least(name, 1)
        for name in ("threads", "spin_us", "max_waiting", "prefix_cache_bytes"):
            self._at_least(name, 0)
        for name in ("max_failures", "prefill_budget"):
            self._at_least(name, 1)
        for name in ("prefix_block", "prefill_chunk"):
            self._at_least(name, 2)
        if not 0 <= self.default_temperature <= 2:
            raise InvalidRequest(
                f"default_temperature {self.default_temperature} is not within 0..2",
                param="default_temperature",
            )
        if not 0 < self.default_top_p <= 1:
            raise InvalidRequest(
                f"default_top_p {self.default_top_p} is not within 0..1", param="default_top_p"
            )
        if not self.providers:
            raise InvalidRequest("providers is empty; name at least one", param="providers")
        if self.threads == 0:
            object.__setattr__(self, "threads", _default_threads())

    def _at_least(self, name: str, limit: int) -> None:
        value = getattr(self, name)
        if value < limit:
            raise InvalidRequest(f"{name} is {value}, and must be at least {limit}", param=name)
