"""What a backend is to a node: models to advertise, and one way to run a generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass

from orchestration.errors import InvalidRequest
from orchestration.messages import Finish, Generation, Hardware, ModelCard, TextDelta, Vectors


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """The model's side is at work, and has nothing to show yet."""


KEEP_ALIVE = KeepAlive()
Output = TextDelta | Vectors | KeepAlive | Finish


class Backend(ABC):
    """Runs models. A node owns exactly one and calls it from its event loop only."""

    name: str
    """The word of `orchestra node --backend`."""
    calls_tools = False
    """Whether it takes generations with an `offer` of tools."""

    @abstractmethod
    async def start(self, memory_bytes: int = 0) -> None:
        """Load what is to be served, in its order as far as it fits into `memory_bytes`; 0 is no limit.

        Raises an `OrchestraError` that says what is wrong, `InvalidRequest` for a model that never fits.
        """

    @abstractmethod
    async def close(self) -> None:
        """Stop what runs and free everything; may be called twice."""

    @property
    @abstractmethod
    def models(self) -> tuple[ModelCard, ...]:
        """What is offered; generations run on what is also `loaded`. Valid after `start`."""

    @property
    def loaded(self) -> frozenset[str]:
        """The names of the models in memory. Valid after `start`."""
        return frozenset(card.name for card in self.models)

    @property
    def left_out(self) -> dict[str, str]:
        """Models that should be offered and cannot be loaded, and why. Valid after `start`."""
        return {}

    @property
    def memory_bytes(self) -> int:
        """The memory for models unless the node's settings say otherwise; 0 is no limit."""
        return 0

    @property
    def cache_bytes(self) -> int:
        """What the loaded models take now beside their weights, as far as known."""
        return 0

    async def load(self, model: str) -> None:
        """Bring an offered model into memory, off the event loop; the caller has made room.

        Raises an `OrchestraError` that says what is wrong with it, and `InvalidRequest` here: a backend
        whose models are always in memory.
        """
        raise InvalidRequest(f"the {self.name} backend loads and unloads nothing: {model!r} is always there")

    async def unload(self, model: str) -> None:
        """Free the memory of a loaded model on which nothing runs. Raises as `load` does."""
        raise InvalidRequest(f"the {self.name} backend loads and unloads nothing: {model!r} is always there")

    @property
    @abstractmethod
    def hardware(self) -> Hardware:
        """What it runs on. Valid after `start`."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many generations it takes on at once."""

    @property
    def external_load(self) -> int:
        """Generations that are at work or waiting there for somebody else than this node, as far as known."""
        return 0

    @abstractmethod
    def generate(self, generation: Generation) -> AsyncIterator[Output]:
        """Run one generation: `TextDelta`s (or `Vectors`), then one `Finish`; `KeepAlive`s anywhere before.

        An async generator: closing it, or cancelling the task that iterates it, stops the model at its
        next token. Raises `InvalidRequest` and its children for a request that cannot run, and
        `BackendFailed` or `Unavailable` when the model's side fails.
        """
