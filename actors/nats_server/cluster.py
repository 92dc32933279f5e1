"""One of several nats-servers: its name, its routes to the others, and the store it may use."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from secrets import token_hex

from actors.nats_server.errors import ClusterMismatch
from actors.nats_server.files import ServerFiles
from actors.nats_server.settings import NatsServerSettings

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def variables(settings: NatsServerSettings, files: ServerFiles) -> dict[str, str]:
    """The variables that nats/cluster.conf needs beyond nats/server.conf; empty for a single server."""
    if not settings.join:
        return {}
    return {
        "ORCHESTRA_NATS_NAME": f'"{server_name(settings, files)}"',
        "ORCHESTRA_NATS_CLUSTER": f'"{settings.cluster_name}"',
        "ORCHESTRA_NATS_CLUSTER_PORT": str(settings.cluster_port),
        "ORCHESTRA_NATS_ROUTES": json.dumps([f"nats-route://{each}" for each in settings.join]),
    }


def server_name(settings: NatsServerSettings, files: ServerFiles) -> str:
    """A unique name that never changes: JetStream identifies the owner of a replica by it."""
    if settings.name != NatsServerSettings.model_fields["name"].default:
        return settings.name
    path = files.root / "name"
    if not path.exists():
        host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())
        path.write_text(f"{host}-{token_hex(2)}")
    return path.read_text().strip()


def is_member(files: ServerFiles) -> bool:
    """Whether the store belongs to a cluster already."""
    return (files.store / "$SYS" / "_js_" / "_meta_").is_dir()


def prepare_store(settings: NatsServerSettings, files: ServerFiles) -> None:
    """Move a single server's store aside before it joins a cluster: nats-server would delete it as orphaned.

    Raises `ClusterMismatch` for a store of a cluster that would be opened alone, where its streams would
    diverge, and for an address that the other machines cannot reach.
    """
    if not settings.join:
        if is_member(files):
            raise ClusterMismatch(
                f"the data folder {str(files.root)!r} belongs to a cluster: name its other machines with "
                "--join HOST, or start alone with another --data"
            )
        return
    away = [each for each in settings.join if each.rpartition(":")[0] not in LOOPBACK]
    if settings.host in LOOPBACK and away:
        raise ClusterMismatch(
            f"cannot join {away[0]}: this server listens on {settings.host} only, which other machines "
            "cannot reach; on a private network set ORCHESTRA_NATS_SERVER__HOST=0.0.0.0"
        )
    if settings.jetstream and not is_member(files) and holds_streams(files):
        aside = ServerFiles(standalone_folder(files)).store
        aside.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.store.rename(aside)
        files.prepare()


def holds_streams(files: ServerFiles) -> bool:
    """Whether the store has any stream on disk."""
    return any(files.store.glob("*/streams/*"))


def standalone_folder(files: ServerFiles) -> Path:
    """The data folder of the store that was moved aside; it exists until all of it is in the cluster."""
    return files.root / "standalone"
