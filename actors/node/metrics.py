"""The metrics of a node. Names follow OpenTelemetry's GenAI conventions.

Labelled children are cached: looking one up costs more than counting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

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
RUNNING = Gauge("orchestra_node_running", "Generations in progress", ["node"])
SLOTS = Gauge("orchestra_node_slots", "Maximum generations in progress at once", ["node"])
LOADS = Counter("orchestra_node_loads", "Models loaded into memory", ["node", "model"])
UNLOADS = Counter("orchestra_node_unloads", "Models unloaded from memory", ["node", "model"])
LOAD_SECONDS = Histogram(
    "orchestra_node_load_seconds",
    "Time in seconds to load a model into memory",
    ["model"],
    buckets=LATENCY_BUCKETS,
)
RESIDENT = Gauge(
    "orchestra_node_models_bytes",
    "Bytes of the loaded models' weights, keys and values",
    ["node"],
)
SWAPS = Counter("orchestra_node_swaps", "Loads that another model was unloaded for", ["node"])
_STARTS = Counter(
    "orchestra_node_starts",
    "Generations whose model was in memory (hit), was loaded for them (cold) or in advance (warmed)",
    ["node", "model", "outcome"],
)


@lru_cache(maxsize=4096)
def starts(node: str, model: str, outcome: str) -> Counter:
    return _STARTS.labels(node, model, outcome)


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
    return ModelMetrics(
        TOKENS.labels(model, "prompt"),
        TOKENS.labels(model, "cached"),
        TOKENS.labels(model, "completion"),
        TIME_TO_FIRST_TOKEN.labels(model),
        TIME_PER_OUTPUT_TOKEN.labels(model),
    )


@lru_cache(maxsize=4096)
def duration(model: str, outcome: str) -> Histogram:
    """The histogram of generations that ended with `outcome`."""
    return REQUEST_DURATION.labels(model, outcome)
