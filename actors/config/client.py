"""The settings of commands that only talk to a cluster: its address. They load quickly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from actors.bus.settings import BusSettings
from actors.config.data_folders import data_folders_in_use
from actors.config.layers import merged_layers, settings_error

DEFAULT_DATA = Path("~/.local/share/orchestra")
RUNNING = "the running `orchestra up`"
SECTIONS = (
    "agents",
    "data",
    "dispatcher",
    "echo",
    "evaluation",
    "gateway",
    "jobs",
    "knowledge",
    "local_backend",
    "logs",
    "models",
    "nats",
    "nats_monitor",
    "nats_server",
    "node",
    "onnx",
    "openai",
    "openvino",
    "patterns",
    "replay",
    "telemetry",
    "triton",
    "triton_server",
)
"""Every section and top-level name of `Settings`, listed here so that a client does not import it."""


class ClientSettings(BaseModel):
    """The address of the cluster. Use `load_client`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = DEFAULT_DATA
    """Folder of models, NATS' files, documents and logs; created when it is missing."""
    nats: BusSettings = BusSettings()

    @property
    def folder(self) -> Path:
        """The data folder as an absolute path."""
        return self.data.expanduser().absolute()

    @property
    def models_folder(self) -> Path:
        return self.folder / "models"


def load_client(overrides: Mapping[str, Any] | None = None, file: Path | None = None) -> ClientSettings:
    """The settings that a client needs. Raises `InvalidRequest` as `load` does."""
    merged, origins = merged_layers(overrides or {}, file, SECTIONS)
    with_running_data(merged, origins)
    known = {name: value for name, value in merged.items() if name in ClientSettings.model_fields}
    try:
        return ClientSettings(**known)
    except ValidationError as error:
        raise settings_error(error, ClientSettings, origins) from error


def with_running_data(merged: dict[str, Any], origins: dict[str, str]) -> None:
    """Set the data folder to that of this user's running `orchestra up`, unless a folder or a NATS server is
    set."""
    nats = merged.get("nats")
    if merged.get("data") or (isinstance(nats, Mapping) and nats.get("url")):
        return
    running = data_folders_in_use(DEFAULT_DATA.expanduser().absolute())
    if running is not None:
        merged["data"], origins["data"] = running, RUNNING
