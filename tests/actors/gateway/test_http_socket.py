"""The socket of the HTTP server."""

from __future__ import annotations

import socket

from actors.gateway.http import bind


def test_a_connection_sends_each_chunk_at_once_whatever_the_event_loop() -> None:
    with bind("127.0.0.1:0", 65_536) as listening:
        listening.settimeout(5)
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
