"""What a node measures. Names after OpenTelemetry's GenAI conventions.

The labels of each are looked up once: a lookup costs more than the count itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

from orchestration.messages import Usage

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2)

TIME_TO_FIRST_TOKEN = Histogram(
    "gen_ai_server_time_to_first_token_seconds", "Until the first piece", ["model"], buckets=LATENCY_BUCKETS
)
TIME_PER_OUTPUT_TOKEN = Histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "Between tokens, the first left out",
    ["model"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
)
REQUEST_DURATION = Histogram(
    "gen_ai_server_request_duration_seconds",
    "Whole generations",
    ["model", "outcome"],
    buckets=LATENCY_BUCKETS,
)
TOKENS = Counter("orchestra_node_tokens", "Tokens read and written", ["model", "direction"])
RUNNING = Gauge("orchestra_node_running", "Generations at work", ["node"])
SLOTS = Gauge("orchestra_node_slots", "Generations that may be at work at once", ["node"])
LOADS = Counter("orchestra_node_loads", "Models brought into memory", ["node", "model"])
UNLOADS = Counter("orchestra_node_unloads", "Models whose memory was freed", ["node", "model"])
LOAD_SECONDS = Histogram(
    "orchestra_node_load_seconds", "Bringing a model into memory", ["model"], buckets=LATENCY_BUCKETS
)
RESIDENT = Gauge(
    "orchestra_node_models_bytes",
    "Weights of the loaded models, and the keys and values held for them",
    ["node"],
)
SWAPS = Counter("orchestra_node_swaps", "Loads for which another model had to leave", ["node"])
_STARTS = Counter(
    "orchestra_node_starts",
    "Generations by whether their model was in memory (hit), had to be loaded (cold) or was ahead (warmed)",
    ["node", "model", "outcome"],
)


@lru_cache(maxsize=4096)
def starts(node: str, model: str, outcome: str) -> Counter:
    return _STARTS.labels(node, model, outcome)


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The tokens, with the directions prompt, cached (of the prompt, reused) and completion, and the times
    of one model."""

    prompt: Counter
    cached: Counter
    completion: Counter
    first_token: Histogram
    per_token: Histogram

    def count(self, usage: Usage, completion_tokens: int) -> None:
        """What was read, and how many tokens of the answer this node wrote."""
        self.prompt.inc(usage.prompt_tokens)
        self.completion.inc(completion_tokens)
        if usage.cached_tokens:
            self.cached.inc(usage.cached_tokens)


@lru_cache(maxsize=1024)
def model_metrics(model: str) -> ModelMetrics:
    """Only for models that are served: each keeps its figures for ever."""
    return ModelMetrics(
        TOKENS.labels(model, "prompt"),
        TOKENS.labels(model, "cached"),
        TOKENS.labels(model, "completion"),
        TIME_TO_FIRST_TOKEN.labels(model),
        TIME_PER_OUTPUT_TOKEN.labels(model),
    )


@lru_cache(maxsize=4096)
def duration(model: str, outcome: str) -> Histogram:
    """Of whole generations that ended with `outcome`."""
    return REQUEST_DURATION.labels(model, outcome)
