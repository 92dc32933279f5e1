"""The interface between a node and a backend, which runs models."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import AfterValidator

from orchestration.errors import InvalidRequest
from orchestration.messages import Finish, Generation, Hardware, ModelCard, TextDelta, Vectors


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """A sign of life without output."""


KEEP_ALIVE = KeepAlive()
Output = TextDelta | Vectors | KeepAlive | Finish


@cache
def _cores_and_memory_bytes() -> tuple[int, int]:
    """The cores that this process may use, and the machine's memory."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1, psutil.virtual_memory().total


def host_hardware(provider: str, accelerators: tuple[str, ...] = ()) -> Hardware:
    """This machine with the runtime `provider` and `accelerators`."""
    cores, memory_bytes = _cores_and_memory_bytes()
    return Hardware(cores=cores, memory_bytes=memory_bytes, provider=provider, accelerators=accelerators)


class Backend(ABC):
    """Runs models. A node owns exactly one and calls it from its event loop only."""

    name: str
    """The name in `orchestra node --backend`."""
    serves_folders = False
    """Whether it can `add` a model folder while it runs."""
    calls_tools = False
    """Whether it accepts generations with an `offer` of tools."""

    @abstractmethod
    async def start(self, memory_bytes: int = 0) -> None:
        """Load the models to serve, in order, while they fit into `memory_bytes` (0: no limit).

        Raises an `OrchestraError` that says what is wrong; `InvalidRequest` for a model larger than the
        limit.
        """

    @abstractmethod
    async def close(self) -> None:
        """Stop all generations and free everything. May be called twice."""

    @property
    @abstractmethod
    def models(self) -> tuple[ModelCard, ...]:
        """The offered models; generations run only on `loaded` ones. Valid after `start`."""

    @property
    def loaded(self) -> frozenset[str]:
        """The names of the models in memory. Valid after `start`."""
        return frozenset(card.name for card in self.models)

    @property
    def left_out(self) -> dict[str, str]:
        """Models that cannot be loaded, with the reason. Valid after `start`."""
        return {}

    @property
    def memory_bytes(self) -> int:
        """Default memory limit for models, if the node's settings have none; 0: no limit."""
        return 0

    @property
    def cache_bytes(self) -> int:
        """Bytes that the loaded models take in addition to their weights, if known."""
        return 0

    async def load(self, model: str) -> None:
        """Load an offered model, outside the event loop; the caller has freed memory for it.

        Raises an `OrchestraError` that says what is wrong; `InvalidRequest` by default, for backends whose
        models are always in memory.
        """
        raise InvalidRequest(
            f"the {self.name} backend loads and unloads nothing: model {model!r} is always loaded"
        )

    async def unload(self, model: str) -> None:
        """Unload a model on which nothing runs. Raises as `load` does."""
        raise InvalidRequest(
            f"the {self.name} backend loads and unloads nothing: model {model!r} is always loaded"
        )

    async def add(self, folder: Path) -> ModelCard:
        """Offer the model in `folder` too, without loading it. Raises `InvalidRequest` by default, for
        backends that serve no model folders."""
        raise InvalidRequest(f"the {self.name} backend serves no model folders: nothing can be pulled to it")

    @property
    @abstractmethod
    def hardware(self) -> Hardware:
        """The hardware that it runs on. Valid after `start`."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """Maximum generations in progress at once."""

    @property
    def external_load(self) -> int:
        """Generations of other clients that its server runs or queues, if known."""
        return 0

    @abstractmethod
    def generate(self, generation: Generation) -> AsyncIterator[Output]:
        """Run one generation: `TextDelta`s (or `Vectors`), then one `Finish`; `KeepAlive`s anywhere before.

        An async generator: closing it, or cancelling the task that iterates it, stops the model at its
        next token. Raises `InvalidRequest` and its children for a request that cannot run, and
        `BackendFailed` or `Unavailable` when the model's side fails.
        """


def _named(value: dict[str, str]) -> dict[str, str]:
    for served, upstream in value.items():
        if not served or not upstream:
            raise ValueError(f"models must map names to names, not {served!r} to {upstream!r}")
    return value


UpstreamNames = Annotated[dict[str, str], AfterValidator(_named)]
"""A setting: the names of served models → the upstream's names for them."""
