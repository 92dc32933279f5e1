"""All settings of Orchestra: one section per component, from a file, the environment and the command.

`orchestra.toml` and the environment use the same names: `[gateway] http = "…"` is
`ORCHESTRA_GATEWAY__HTTP`. The environment wins over the file, the command line over both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from actors.agents.settings import AgentsSettings
from actors.dispatcher.settings import DispatcherSettings
from actors.evaluation.settings import EvaluationSettings
from actors.gateway.settings import GatewaySettings
from actors.jobs.settings import JobsSettings
from actors.knowledge.settings import KnowledgeSettings
from actors.nats_server.settings import NatsServerSettings
from actors.node.settings import NodeSettings
from actors.patterns.settings import PatternsSettings
from actors.runtime.bus import BusSettings
from actors.runtime.telemetry import TelemetrySettings
from actors.triton.settings import TritonServerSettings
from orchestration.errors import InvalidRequest

CONFIG_VARIABLE = "ORCHESTRA_CONFIG"
PREFIX = "ORCHESTRA_"
DEFAULT_DATA = Path("~/.local/share/orchestra")
SECRET_WORDS = ("password", "secret", "token", "key")
DEFAULT = "default"


class Settings(BaseSettings):
    """What is in force. Use `load`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, toml_file=None
    )

    data: Path = DEFAULT_DATA
    """Models, JetStream's files and logs."""
    models: tuple[str, ...] = ("smollm2-135m",)
    """What `orchestra up` and `orchestra node --backend onnx` serve unless told otherwise."""
    nats: BusSettings = BusSettings()
    nats_server: NatsServerSettings = NatsServerSettings()
    gateway: GatewaySettings = GatewaySettings()
    dispatcher: DispatcherSettings = DispatcherSettings()
    agents: AgentsSettings = AgentsSettings()
    jobs: JobsSettings = JobsSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    patterns: PatternsSettings = PatternsSettings()
    node: NodeSettings = NodeSettings()
    onnx: dict[str, Any] = Field(default_factory=dict)
    openai: dict[str, Any] = Field(default_factory=dict)
    echo: dict[str, Any] = Field(default_factory=dict)
    triton: dict[str, Any] = Field(default_factory=dict)
    triton_server: TritonServerSettings = TritonServerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @property
    def folder(self) -> Path:
        """The data folder as an absolute path."""
        return self.data.expanduser().absolute()

    @property
    def models_folder(self) -> Path:
        return self.folder / "models"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line alone: `load` merges the others, so that it knows who said what."""
        return (init_settings,)


def config_file(explicit: Path | None = None) -> Path | None:
    """The file in force: the one named, `$ORCHESTRA_CONFIG`, ./orchestra.toml, or the user's own."""
    named = explicit or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise InvalidRequest(f"there is no settings file {named}")
        return named
    usual = (Path("orchestra.toml"), Path("~/.config/orchestra/orchestra.toml").expanduser())
    return next((path for path in usual if path.is_file()), None)


def load(said: Mapping[str, Any] | None = None, file: Path | None = None) -> tuple[Settings, dict[str, str]]:
    """The settings in force, and where each value comes from (dotted name to source).

    `said` is what the command line says, nested like the sections. Raises `InvalidRequest` naming the
    setting, its source and what is wrong with it.
    """
    path = config_file(file)
    layers: list[tuple[str, dict[str, Any]]] = []
    if path is not None:
        layers.append((str(path), _read(path)))
    environment = {k: v for k, v in os.environ.items() if k.startswith(PREFIX) and k != CONFIG_VARIABLE}
    layers.append(("environment", EnvSettingsSource(Settings)()))
    _refuse_unknown(environment)
    layers.append(("command line", dict(said or {})))
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source, values in layers:
        for name in _merge(merged, values):
            variable = PREFIX + name.upper().replace(".", "__")
            origins[name] = f"${variable}" if source == "environment" else source
    try:
        return Settings(**merged), origins
    except ValidationError as error:
        raise _explained(error, origins) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(TomlConfigSettingsSource(Settings, path)())
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read {path}: {error}") from error


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    for name in environment:
        section = name[len(PREFIX) :].lower().split("__")[0]
        if section not in Settings.model_fields:
            known = ", ".join(PREFIX + field.upper() for field in Settings.model_fields)
            raise InvalidRequest(f"${name} sets nothing; the sections are {known}")


def _merge(into: dict[str, Any], values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lay `values` over `into`; returns the dotted names of the leaves it set."""
    names: list[str] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = into.get(key)
            inner = dict(inner) if isinstance(inner, Mapping) else {}
            names += _merge(inner, value, f"{prefix}{key}.")
            into[key] = inner
        else:
            into[key] = value
            names.append(prefix + key)
    return names


def _explained(error: ValidationError, origins: Mapping[str, str]) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    related = (known for known in origins if name.startswith(known) or known.startswith(f"{name}."))
    source = next((origins[known] for known in related), "")
    where = f" (from {source})" if source else ""
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return InvalidRequest(f"setting {name}{where}: {first['msg']}{more}", param=name)


def leaves(settings: Settings) -> dict[str, Any]:
    """Every value in force by its dotted name, secrets masked."""
    found: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, BaseModel):
            for name in type(value).model_fields:
                walk(f"{prefix}.{name}" if prefix else name, getattr(value, name))
        elif isinstance(value, Mapping) and value:
            for name, inner in value.items():
                walk(f"{prefix}.{name}", inner)
        else:
            found[prefix] = _masked(prefix, value)

    walk("", settings)
    return found


def _masked(name: str, value: Any) -> Any:
    last = name.rsplit(".", 1)[-1]
    secret = any(last == word or last.endswith("_" + word) for word in SECRET_WORDS)
    if secret and value:
        return "********"
    if isinstance(value, str) and "@" in value and "://" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://********@{rest.rpartition('@')[2]}"
    return value
