"""What a node advertises and measures, and how models are loaded and unloaded on it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestration.wire import ErrorBody, Wire


class ModelCard(Wire):
    """A model as a node advertises it. `parameters` and `memory_bytes` of 0 mean unknown.

    One that is not `loaded` is offered: the first generation has it loaded, in about `load_s` seconds,
    which is 0 where that is not known or never needed.
    """

    name: str
    kind: Literal["chat", "embedding"] = "chat"
    context_tokens: int = 0
    parameters: int = 0
    memory_bytes: int = 0
    loaded: bool = True
    load_s: float = 0.0
    pinned: bool = False
    """Whether an operator has ordered that it stays in memory."""


class LoadModel(Wire):
    """Loads a model that the node offers.

    With `ahead`, no request waits for it: only the models `leaving` may be unloaded for it, and none in use.
    """

    model: str
    ahead: bool = False
    leaving: tuple[str, ...] = ()


class UnloadModel(Wire):
    """Frees the memory of a model, once nothing runs on it."""

    model: str


class LoadResult(Wire):
    """The node's answer to both: whether the model is in memory now, and how long the change took."""

    node: str
    model: str
    loaded: bool
    changed: bool
    seconds: float = 0.0


class PinModel(Wire):
    """Loads a model and keeps it in memory, whatever else is asked for; with `pinned` false it may leave
    again."""

    model: str
    pinned: bool = True


class LabelNode(Wire):
    """Sets labels of a node, and removes others, for as long as the node lives."""

    labels: dict[str, str] = Field(default_factory=dict)
    remove: tuple[str, ...] = ()


class NodeLabels(Wire):
    """The node's answer: its labels before and after."""

    before: dict[str, str]
    after: dict[str, str]


class PullModel(Wire):
    """Downloads a model of the catalogue to the node, which then offers it."""

    model: str


class ListPulls(Wire):
    """Asks a node for its pulls."""


class ModelPull(Wire):
    """One pull of a model on a node. Times are Unix seconds."""

    id: str
    node: str
    model: str
    state: Literal["running", "done", "failed"] = "running"
    stage: str = ""
    """What it does now, such as a download."""
    done: float = 0.0
    """How much of the stage is done, of `total`; 0 of 0 is unknown."""
    total: float = 0.0
    error: ErrorBody | None = None
    started_at: float = 0.0
    ended_at: float = 0.0


class ModelPulls(Wire):
    """The node's answer: its latest pulls."""

    pulls: tuple[ModelPull, ...] = ()


class MemoryUse(Wire):
    """A node's memory for models. A `limit_bytes` of 0 means unlimited.

    `claims` are models whose generations were refused just now because what is in memory was in use. A swap
    is a load that another model had to be unloaded for.

    Generations found their model in memory (`hits`), had to wait for it (`cold`), or would have had to, were
    it not loaded ahead (`warmed`).
    """

    limit_bytes: int = 0
    claims: tuple[str, ...] = ()
    loads: int = 0
    unloads: int = 0
    swaps: int = 0
    cold: int = 0
    warmed: int = 0
    hits: int = 0


class Hardware(Wire):
    """What a node runs on. `provider` says what executes the model, as the backend names it."""

    cores: int
    memory_bytes: int
    provider: str
    accelerators: tuple[str, ...] = ()


class ModelRates(Wire):
    """How fast a node runs one of its models, in seconds: the first token comes after `first_s` and
    `prompt_token_s` for each prompt token that was not cached, each further one after `token_s` and
    `token_s_per_other` for each other generation at work.

    `samples` generations were measured. `error_rate` is the share of the latest that failed; `slowdown`
    is the duration of the latest generations over the expected one.
    """

    samples: int = 0
    first_s: float = 0.0
    prompt_token_s: float = 0.0
    token_s: float = 0.0
    token_s_per_other: float = 0.0
    error_rate: float = 0.0
    slowdown: float = 1.0


class NodeInfo(Wire):
    """A node's leased entry in the registry: who it is, what it serves and how busy it is.

    `slots` bounds the generations at work at once; `running` are at work now.
    """

    id: str
    backend: str
    models: tuple[ModelCard, ...]
    hardware: Hardware
    labels: dict[str, str] = Field(default_factory=dict)
    rates: dict[str, ModelRates] = Field(default_factory=dict)
    """Measured rates by model."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Models that it should serve and cannot load, with the reason."""
    memory: MemoryUse = MemoryUse()
    slots: int
    running: int = 0
    draining: bool = False
    started_at: float = 0.0

    def serves(self, model: str) -> bool:
        return any(card.name == model for card in self.models)

    @property
    def free_slots(self) -> int:
        return 0 if self.draining else max(0, self.slots - self.running)
