"""What a backend is to a node: models to advertise, and one way to run a generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass

from orchestration.messages import FinishReason, Generation, Hardware, ModelCard, TokenLogprob, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Text of one or more tokens. `text` is whole UTF-8 and may be empty while a character is open."""

    text: str
    tokens: int = 1
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors for `inputs[index : index + len(vectors)]`, each base64 of little-endian float32."""

    index: int
    vectors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The last item of every generation that did not raise."""

    reason: FinishReason
    usage: Usage


Output = Piece | Embeddings | Finish


class Backend(ABC):
    """Runs models. A node owns exactly one and calls it from its event loop only."""

    name: str
    """The word of `orchestra node --backend`."""

    @abstractmethod
    async def start(self) -> None:
        """Load what is to be served; raises an `OrchestraError` that says what is wrong."""

    @abstractmethod
    async def close(self) -> None:
        """Stop what runs and free everything; may be called twice."""

    @property
    @abstractmethod
    def models(self) -> tuple[ModelCard, ...]:
        """What is served now. Valid after `start`."""

    @property
    @abstractmethod
    def hardware(self) -> Hardware:
        """What it runs on. Valid after `start`."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many generations it takes on at once."""

    @abstractmethod
    def generate(self, generation: Generation) -> AsyncIterator[Output]:
        """Run one generation: `Piece`s (or `Embeddings`), then one `Finish`.

        An async generator: closing it, or cancelling the task that iterates it, stops the model at its
        next token. Raises `InvalidRequest` and its children for a request that cannot run, and
        `BackendFailed` or `Unavailable` when the model's side fails.
        """
