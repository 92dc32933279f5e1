"""Who a process is, as traces, logs, metrics and the admin API name it."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from secrets import token_hex

from actors import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One process of the cluster."""

    role: str
    """`up`, `gateway`, `dispatcher`, `agents`, `node` or `logs`."""
    id: str
    """Unique in the cluster: role, host and four random hexadecimal digits."""
    host: str
    pid: int
    version: str = __version__
    started_at: float = field(default_factory=time.time)
    """Unix time in seconds."""

    @classmethod
    def of_this_process(cls, role: str) -> ProcessIdentity:
        """A new identity for this process."""
        host = socket.gethostname().partition(".")[0]
        return cls(role=role, id=f"{role}-{host}-{token_hex(2)}", host=host, pid=os.getpid())
