"""Settings of traces and logs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.telemetry.content import DEFAULT_PATTERNS, compile_pattern
from orchestration.hot import Hot
from orchestration.validation import split_address


class TelemetrySettings(BaseModel):
    """Traces and logs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    otlp_endpoint: str = ""
    """Base URL of an OTLP collector, for example http://127.0.0.1:4318, or http://127.0.0.1:4317 for gRPC.
    Empty: no traces."""
    otlp_protocol: Literal["http", "grpc"] = "http"
    """How the collector is spoken to: `http` is OTLP/HTTP with protobuf; `grpc` needs the extra
    `otlp-grpc`."""
    sample_ratio: Hot[float] = Field(default=1.0, ge=0, le=1)
    """Share of requests without a `traceparent` that are traced. A request with one is traced when its
    sampled flag is set."""
    client_context: Hot[Literal["parent", "link"]] = "parent"
    """What becomes of a client's `traceparent`. `parent`: the request continues the client's trace. `link`:
    the request is the root of a trace of its own, which links to the client's span; for clients whose spans
    are not exported to the same place."""
    slow_s: Hot[float] = Field(default=30.0, ge=0)
    """A request that takes at least this many seconds, or that fails, is traced also where `sample_ratio`
    or the client left it out. 0 switches this off."""
    tail_spans: Hot[int] = Field(default=20_000, ge=0)
    """Maximum spans of requests that are not traced so far, kept per process until their request has ended;
    the oldest are dropped."""
    tail_s: Hot[float] = Field(default=60.0, gt=0)
    """How long such a span is kept at most, in seconds."""
    export_queue: int = Field(default=8_192, ge=1)
    """Maximum spans, and maximum log records, that wait for the collector per process; more are dropped and
    counted."""
    export_interval_s: float = Field(default=1.0, gt=0)
    """Time between two exports."""
    export_timeout_s: float = Field(default=5.0, gt=0)
    """How long one export may take, with its repetitions, before its spans are dropped and counted; also
    how long the end of a process waits for the last export."""
    content: Hot[bool] = False
    """Whether prompts, answers and the arguments and results of tools are in traces, redacted by `redact`."""
    content_characters: Hot[int] = Field(default=16_384, ge=0)
    """Maximum characters of one content attribute; longer ones are cut."""
    redact: Hot[tuple[str, ...]] = DEFAULT_PATTERNS
    """Regular expressions whose matches in content are replaced by `[redacted]`. The defaults match API keys,
    bearer tokens, passwords in URLs, and private keys."""
    nats_messages: Hot[bool] = True
    """Whether NATS servers tell which way the messages of a traced request took: one span for each server
    that a message crossed. Where many requests are traced, such a message costs about 0.2 ms."""
    nats_messages_per_second: Hot[int] = Field(default=100, ge=0)
    """Maximum messages for which this process asks that a second; further ones are counted and have no such
    span."""
    nats_records_per_second: Hot[int] = Field(default=1_000, ge=0)
    """Maximum answers of NATS servers that this process reads a second; further ones are counted and
    dropped."""
    service_name: str = "orchestra"
    """Value of `service.name` in traces."""
    log_level: Hot[Literal["DEBUG", "INFO", "WARNING", "ERROR"]] = "WARNING"
    """Minimum level of log lines."""
    log_format: Literal["text", "json"] = "text"
    """Form of log lines: text for people, or one JSON object a line."""
    log_file: str = ""
    """File for log lines instead of stderr; it is rotated. Empty: stderr."""
    log_file_mib: float = Field(default=10, gt=0)
    """Size at which the log file is rotated, in MiB."""
    log_files: int = Field(default=5, ge=1, le=100)
    """Maximum rotated log files beside the present one; older ones are deleted."""
    max_label_values: int = Field(default=500, ge=10, le=100_000)
    """Maximum values of each label of metrics that names models, nodes, patterns, agents or tools. Further
    ones are `other`, and counted in `orchestra_label_values_over_limit_total`."""
    metrics: str = "127.0.0.1:0"
    """The address at which a process without a gateway serves `/metrics`, `/healthz` and `/readyz`:
    `host:port` or `[v6]:port`; port 0 takes a free port, which the ready line names. Empty: none. A
    gateway serves them at `gateway.http`, and there the metrics of all other processes as well."""

    @field_validator("metrics")
    @classmethod
    def _has_host_and_port(cls, value: str) -> str:
        if value:
            split_address(value)
        return value

    @field_validator("redact")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            compile_pattern(pattern)
        return patterns
