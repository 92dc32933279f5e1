"""What a node measures. Names after OpenTelemetry's GenAI conventions."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

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
"""The direction is `prompt`, `cached` (of the prompt, reused) or `completion`."""
