"""The nats-server beside `orchestra up`: started, kept running, never left behind."""

from actors.nats_server.embedded import EmbeddedNats
from actors.nats_server.errors import (
    ClusterMismatch,
    DataFolderInUse,
    DataFolderUnusable,
    NatsPortInUse,
    NatsServerError,
    ServerBinaryMissing,
)
from actors.nats_server.lock import find_running
from actors.nats_server.settings import NatsServerSettings

__all__ = [
    "ClusterMismatch",
    "DataFolderInUse",
    "DataFolderUnusable",
    "EmbeddedNats",
    "NatsPortInUse",
    "NatsServerError",
    "NatsServerSettings",
    "ServerBinaryMissing",
    "find_running",
]
