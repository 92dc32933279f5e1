"""Errors of an embedded nats-server.

BusUnavailable
└── NatsServerError          it did not start, or died again and again
    ├── ServerBinaryMissing  no nats-server on this machine
    ├── NatsPortInUse        another program listens on the port
    ├── DataFolderUnusable   the data folder cannot be created or written
    ├── DataFolderInUse      another orchestra uses the data folder
    └── ClusterMismatch      its store or its address does not fit the cluster it is to join
"""

from __future__ import annotations

from orchestration.errors import BusUnavailable


class NatsServerError(BusUnavailable):
    """The embedded nats-server does not run, and a retry does not help. The text says what to do."""

    retryable = False


class ServerBinaryMissing(NatsServerError):
    pass


class NatsPortInUse(NatsServerError):
    pass


class DataFolderUnusable(NatsServerError):
    pass


class DataFolderInUse(NatsServerError):
    pass


class ClusterMismatch(NatsServerError):
    pass
