"""Why an embedded nats-server does not run.

BusUnavailable
└── NatsServerError          it did not start, or it died again and again
    ├── ServerBinaryMissing  no nats-server on this machine
    ├── PortBusy             somebody else listens on the port
    ├── DataFolderUnusable   cannot be created or written
    ├── DataFolderInUse      another orchestra holds it
    └── ClusterMisfit        its store or its address does not go with the cluster it is to join
"""

from __future__ import annotations

from orchestration.errors import BusUnavailable


class NatsServerError(BusUnavailable):
    """The embedded nats-server does not run, and waiting will not help: the text says what will."""

    retryable = False


class ServerBinaryMissing(NatsServerError):
    pass


class PortBusy(NatsServerError):
    pass


class DataFolderUnusable(NatsServerError):
    pass


class DataFolderInUse(NatsServerError):
    pass


class ClusterMisfit(NatsServerError):
    pass
