"""All settings of Orchestra: one section per component, from a file, the environment and the command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from actors.agents.settings import AgentsSettings
from actors.config.client import ClientSettings, with_running_data
from actors.config.layers import merged_layers, settings_error
from actors.config.masking import shown_values
from actors.config.setting_names import dotted
from actors.dispatcher.settings import DispatcherSettings
from actors.evaluation.settings import EvaluationSettings
from actors.gateway.settings import GatewaySettings
from actors.jobs.settings import JobsSettings
from actors.knowledge.settings import KnowledgeSettings
from actors.logs.settings import LogsSettings
from actors.nats_monitor.settings import NatsMonitorSettings
from actors.nats_server.settings import NatsServerSettings
from actors.node.settings import NodeSettings
from actors.patterns.settings import PatternsSettings
from actors.telemetry.settings import TelemetrySettings
from actors.triton.settings import TritonServerSettings

DEFAULT = "default"


class Settings(ClientSettings):
    """All settings. Use `load`."""

    models: tuple[str, ...] = ("smollm2-135m",)
    """Models that `orchestra up` and `orchestra node --backend onnx` serve without `--model`, and
    `--backend openvino` too."""
    local_backend: Literal["auto", "onnx", "openvino"] = "auto"
    """The backend of the node of `orchestra up`. `auto`: `openvino` where it is installed, on a processor
    with AVX-512, unless the section `onnx` has settings; else `onnx`. Measured on one Xeon: 1.1 to 1.4 times
    the tokens per CPU-second with 8 to 32 generations at once, 0.9 to 1.1 with one."""
    nats_server: NatsServerSettings = NatsServerSettings()
    nats_monitor: NatsMonitorSettings = NatsMonitorSettings()
    gateway: GatewaySettings = GatewaySettings()
    dispatcher: DispatcherSettings = DispatcherSettings()
    agents: AgentsSettings = AgentsSettings()
    jobs: JobsSettings = JobsSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    patterns: PatternsSettings = PatternsSettings()
    node: NodeSettings = NodeSettings()
    onnx: dict[str, Any] = Field(default_factory=dict)
    openvino: dict[str, Any] = Field(default_factory=dict)
    openai: dict[str, Any] = Field(default_factory=dict)
    echo: dict[str, Any] = Field(default_factory=dict)
    replay: dict[str, Any] = Field(default_factory=dict)
    triton: dict[str, Any] = Field(default_factory=dict)
    triton_server: TritonServerSettings = TritonServerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    logs: LogsSettings = LogsSettings()


def load(
    overrides: Mapping[str, Any] | None = None, file: Path | None = None, *, find_running: bool = True
) -> tuple[Settings, dict[str, str]]:
    """The settings, and the source of each value by its dotted name.

    `overrides` are the values of the command line, nested like the sections. With `find_running` the data
    folder, if it is not set, is that of this user's running `orchestra up`. Raises `InvalidRequest` with the
    setting, its source and the error.
    """
    merged, origins = merged_layers(overrides or {}, file, tuple(Settings.model_fields))
    if find_running:
        with_running_data(merged, origins)
    try:
        return Settings(**merged), origins
    except ValidationError as error:
        raise settings_error(error, Settings, origins) from error


def leaves(settings: Settings) -> dict[str, Any]:
    """Every value by its dotted name, with secrets masked."""
    return {dotted(path): value for path, value in shown_values(settings).items()}
