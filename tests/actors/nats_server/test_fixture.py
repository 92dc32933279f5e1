from __future__ import annotations

import socket

from tests.fixtures.nats import RunningNats


def info_line(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        return connection.recv(4096)


def test_the_servers_greeting_offers_jetstream_and_the_limit_of_eight_megabytes(
    nats_server: RunningNats,
) -> None:
    greeting = info_line(nats_server.port)
    assert greeting.startswith(b"INFO ")
    assert b'"jetstream":true' in greeting
    assert b'"max_payload":8388608' in greeting


def test_a_killed_server_comes_back_on_its_port(own_nats: RunningNats) -> None:
    own_nats.kill()
    own_nats.restart()
    assert info_line(own_nats.port).startswith(b"INFO ")
