from __future__ import annotations

from tests.fixtures.nats import nats_server, own_nats

__all__ = ["nats_server", "own_nats"]
