"""Which addresses are public."""

from __future__ import annotations

import pytest

from actors.net.public_addresses import check_url, is_private
from actors.net.public_resolver import PublicResolver
from orchestration.errors import InvalidRequest


async def test_a_name_with_a_private_address_is_refused_when_it_is_resolved() -> None:
    resolver = PublicResolver()
    with pytest.raises(OSError, match="not public"):
        await resolver.resolve("localhost", 80)
    await resolver.close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "2002:7f00:0001::",
    ],
)
def test_private_addresses_are_recognised_in_every_spelling(host: str) -> None:
    assert is_private(host)
    url = f"http://[{host}]/" if ":" in host else f"http://{host}/"
    with pytest.raises(InvalidRequest):
        check_url(url, private=False)
    if ":" not in host:
        assert check_url(url, private=True).host


@pytest.mark.parametrize("host", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "example.org"])
def test_public_addresses_and_names_are_allowed(host: str) -> None:
    assert not is_private(host)
