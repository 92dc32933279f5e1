"""The interfaces between the engine and a runtime, which computes logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors.engine.kv import KvShape
from actors.engine.prefix import Chain
from actors.engine.settings import EngineSettings
from actors.models.manifest import ModelManifest


class Session(Protocol):
    """Runs a chat model over the rows of a cache. Not thread-safe.

    Logits are valid until the next call; the caller may modify them.
    """

    def decode(self, tokens: NDArray[np.int64], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        """One step of the first `len(tokens)` rows: logits [n, vocabulary].

        `tokens` [n] is the next token of each row, `lengths` [n] how many its cache holds already.
        """

    def prefill(self, row: int, tokens: NDArray[np.int64], past: int) -> NDArray[np.float32]:
        """Read `tokens` [t] into `row` after the `past` tokens it holds: logits [vocabulary] of the last."""


class Verify(Protocol):
    """The call of a session that checks a proposal."""

    def __call__(self, row: int, tokens: NDArray[np.int64], past: int) -> NDArray[np.float32]:
        """Read `tokens` [t] into `row` after the `past` tokens it holds: logits [t, vocabulary] of all."""


@dataclass(frozen=True, slots=True)
class Lookahead:
    """How an engine may check proposed tokens of a generation that decodes alone."""

    tokens: int
    """Tokens to propose."""
    verify: Verify


class KvRows(Protocol):
    """Rows of keys and values, local or remote; see `actors.engine.kv.KvCache`."""

    @property
    def shape(self) -> KvShape: ...

    def move(self, source: int, target: int, tokens: int) -> None: ...

    def claim(self, row: int, tokens: int) -> None: ...

    def fit(self, limit: int, free: Sequence[int]) -> None: ...


class PrefixStore(Protocol):
    """Cached blocks of prompts; see `actors.engine.prefix.PrefixCache`."""

    block: int

    @property
    def held_bytes(self) -> int: ...

    def load(self, chain: Chain, tokens: NDArray[np.int64], row: int, start: int) -> bool: ...

    def store(self, chain: Chain, tokens: NDArray[np.int64], row: int, start: int) -> bool: ...

    def touch(self, chain: Chain) -> None: ...

    def shrink(self, size: int) -> None: ...

    def clear(self) -> None: ...


class Encoder(Protocol):
    """Runs an embedding model."""

    def embed(self, inputs: Sequence[list[int]]) -> NDArray[np.float32]:
        """Unit vectors [inputs, hidden] of tokenised texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """A chat model in memory."""

    session: Session
    kv: KvRows
    prefix: PrefixStore
    lookahead: Lookahead | None = None
    """None: a call of several tokens costs too much, or moves logits."""


class Runtime(Protocol):
    """Loads models: `OnnxRuntime`, `TorchRuntime`, `PipelineRuntime`."""

    @property
    def provider(self) -> str:
        """The execution provider or device, for the node's description."""

    @property
    def reserves(self) -> bool:
        """Whether a cache allocates the full length of every row at once, not as it is written."""

    def shape(self, manifest: ModelManifest) -> KvShape:
        """The size of a token's keys and values."""

    def open(
        self, folder: Path, manifest: ModelManifest, settings: EngineSettings, *, rows: int, length: int
    ) -> OpenModel:
        """Load a chat model with a cache of `rows` rows of `length` tokens. Raises an `OrchestraError`."""

    def encoder(self, folder: Path) -> Encoder:
        """Load an embedding model. Raises an `OrchestraError`."""
