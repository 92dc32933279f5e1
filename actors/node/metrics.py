"""The metrics of a node. Names follow OpenTelemetry's GenAI conventions.

Labelled children are cached: looking one up costs more than counting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

from actors.telemetry.labels import MODELS, NODES
from orchestration.messages import Usage

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2)

TIME_TO_FIRST_TOKEN = Histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "Time in seconds to the first output of a generation",
    ["model"],
    buckets=LATENCY_BUCKETS,
)
TIME_PER_OUTPUT_TOKEN = Histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "Time in seconds per token after the first",
    ["model"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
)
REQUEST_DURATION = Histogram(
    "gen_ai_server_request_duration_seconds",
    "Duration of generations in seconds",
    ["model", "outcome"],
    buckets=LATENCY_BUCKETS,
)
TOKENS = Counter("orchestra_node_tokens", "Tokens read and written", ["model", "direction"])
_RUNNING = Gauge("orchestra_node_running", "Generations in progress", ["node"])
_SLOTS = Gauge("orchestra_node_slots", "Maximum generations in progress at once", ["node"])
_LOADS = Counter("orchestra_node_loads", "Models loaded into memory", ["node", "model"])
_UNLOADS = Counter("orchestra_node_unloads", "Models unloaded from memory", ["node", "model"])
_LOAD_SECONDS = Histogram(
    "orchestra_node_load_seconds",
    "Time in seconds to load a model into memory",
    ["model"],
    buckets=LATENCY_BUCKETS,
)
_RESIDENT = Gauge(
    "orchestra_node_models_bytes",
    "Bytes of the loaded models' weights, keys and values",
    ["node"],
)
_SWAPS = Counter("orchestra_node_swaps", "Loads that another model was unloaded for", ["node"])
_STARTS = Counter(
    "orchestra_node_starts",
    "Generations whose model was in memory (hit), was loaded for them (cold) or in advance (warmed)",
    ["node", "model", "outcome"],
)


@lru_cache(maxsize=4096)
def starts(node: str, model: str, outcome: str) -> Counter:
    return _STARTS.labels(NODES.of(node), MODELS.of(model), outcome)


@lru_cache(maxsize=4096)
def loads(node: str, model: str) -> Counter:
    return _LOADS.labels(NODES.of(node), MODELS.of(model))


@lru_cache(maxsize=4096)
def unloads(node: str, model: str) -> Counter:
    return _UNLOADS.labels(NODES.of(node), MODELS.of(model))


@lru_cache(maxsize=1024)
def load_seconds(model: str) -> Histogram:
    return _LOAD_SECONDS.labels(MODELS.of(model))


class NodeMetrics:
    """The metrics of one node as a whole."""

    def __init__(self, node: str) -> None:
        label = NODES.of(node)
        self.running = _RUNNING.labels(label)
        """Generations in progress."""
        self.slots = _SLOTS.labels(label)
        """Maximum of them."""
        self.resident_bytes = _RESIDENT.labels(label)
        """Memory of the loaded models."""
        self.swaps = _SWAPS.labels(label)
        """Loads for which another model was unloaded."""


def _node_removed(label: str) -> None:
    for cached in (starts, loads, unloads):
        cached.cache_clear()
    for metric in (_RUNNING, _SLOTS, _LOADS, _UNLOADS, _RESIDENT, _SWAPS, _STARTS):
        metric.remove_by_labels({"node": label})


NODES.on_removed.append(_node_removed)


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """Token counters and latencies of one model."""

    prompt: Counter
    """Prompt tokens."""
    cached: Counter
    """Prompt tokens that were reused."""
    completion: Counter
    """Generated tokens."""
    first_token: Histogram
    """Seconds to the first token."""
    per_token: Histogram
    """Seconds per further token."""

    def count(self, usage: Usage, completion_tokens: int) -> None:
        """Add a generation's usage; `completion_tokens` are those that this node generated."""
        self.prompt.inc(usage.prompt_tokens)
        self.completion.inc(completion_tokens)
        if usage.cached_tokens:
            self.cached.inc(usage.cached_tokens)


@lru_cache(maxsize=1024)
def model_metrics(model: str) -> ModelMetrics:
    """The metrics of `model`. Call it for served models only: its labels are never removed."""
    label = MODELS.of(model)
    return ModelMetrics(
        TOKENS.labels(label, "prompt"),
        TOKENS.labels(label, "cached"),
        TOKENS.labels(label, "completion"),
        TIME_TO_FIRST_TOKEN.labels(label),
        TIME_PER_OUTPUT_TOKEN.labels(label),
    )


@lru_cache(maxsize=4096)
def duration(model: str, outcome: str) -> Histogram:
    """The histogram of generations that ended with `outcome`."""
    return REQUEST_DURATION.labels(MODELS.of(model), outcome)
