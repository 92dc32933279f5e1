from __future__ import annotations

import pytest
from pydantic import ValidationError

from actors.gateway.settings import GatewaySettings
from orchestration.validation import split_address


def test_an_address_is_a_host_and_a_port_with_brackets_around_ipv6() -> None:
    assert split_address("127.0.0.1:8080") == ("127.0.0.1", 8080)
    assert split_address("localhost:0") == ("localhost", 0)
    assert split_address("[::1]:65535") == ("::1", 65535)


@pytest.mark.parametrize(
    "address", ["8080", ":8080", "host:", "host:http", "host:65536", "::1:80", "host:-1"]
)
def test_what_is_no_address_is_refused_by_name(address: str) -> None:
    with pytest.raises(ValidationError, match=r"host:port|not a port|brackets"):
        GatewaySettings(http=address)


def test_a_misspelt_setting_is_an_error() -> None:
    with pytest.raises(ValidationError, match="max_inflight"):
        GatewaySettings.model_validate({"max_inflight": 5})
