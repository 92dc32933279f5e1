"""The nats-server beside `orchestra up`: started, kept running, never left behind."""

from actors.nats_server.embedded import EmbeddedNats
from actors.nats_server.errors import (
    ClusterMisfit,
    DataFolderInUse,
    DataFolderUnusable,
    NatsServerError,
    PortBusy,
    ServerBinaryMissing,
)
from actors.nats_server.lock import running
from actors.nats_server.settings import NatsServerSettings

__all__ = [
    "ClusterMisfit",
    "DataFolderInUse",
    "DataFolderUnusable",
    "EmbeddedNats",
    "NatsServerError",
    "NatsServerSettings",
    "PortBusy",
    "ServerBinaryMissing",
    "running",
]
