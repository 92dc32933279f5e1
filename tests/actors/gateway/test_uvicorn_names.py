"""`HttpConnection` and `HttpServer` extend classes of uvicorn that it does not document: each name is there.

Where one of these fails, the installed uvicorn has changed it: read its change, then raise the range in
pyproject.toml.
"""

from __future__ import annotations

import asyncio
import inspect

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from actors.gateway.connection import HttpConnection


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("__init__", ["self", "config", "server_state", "app_state", "_loop"]),
        ("connection_made", ["self", "transport"]),
        ("connection_lost", ["self", "exc"]),
        ("data_received", ["self", "data"]),
        ("resume_writing", ["self"]),
        ("on_headers_complete", ["self"]),
        ("on_body", ["self", "body"]),
        ("on_message_complete", ["self"]),
        ("on_response_complete", ["self"]),
        ("_start_asgi_task", ["self", "cycle", "app"]),
        ("send_400_response", ["self", "msg"]),
    ],
)
def test_a_method_that_the_connection_overrides_or_calls_has_its_parameters(
    name: str, expected: list[str]
) -> None:
    assert parameters(getattr(HttpToolsProtocol, name, None)) == expected, f"uvicorn {uvicorn.__version__}"


@pytest.mark.parametrize(
    "name",
    [
        "parser",
        "url",
        "headers",
        "scope",
        "flow",
        "loop",
        "client",
        "transport",
        "config",
        "pipeline",
        "server_state",
    ],
)
def test_an_attribute_that_the_connection_reads_or_sets_is_set_by_uvicorn(name: str) -> None:
    source = inspect.getsource(HttpToolsProtocol)
    assert f"self.{name}" in source, f"uvicorn {uvicorn.__version__}"


def test_a_paused_client_is_seen_in_the_flow_control() -> None:
    assert FlowControl(asyncio.Transport()).write_paused is False
    assert parameters(FlowControl.resume_reading) == ["self"]


def test_the_end_of_a_response_does_what_the_connection_does_in_its_place() -> None:
    source = inspect.getsource(HttpToolsProtocol.on_response_complete)
    done = [
        "total_requests += 1",
        "flow.resume_reading()",
        "pipeline.pop()",
        "_start_asgi_task",
        "call_later",
    ]
    assert all(each in source for each in done), f"uvicorn {uvicorn.__version__}"


def test_a_response_reports_its_end_to_the_connection() -> None:
    assert "on_response" in parameters(RequestResponseCycle)


def test_the_connection_adds_no_method_that_uvicorn_has_for_another_purpose() -> None:
    own = {name for name in vars(HttpConnection) if not name.startswith("__")}
    shared = own & set(dir(HttpToolsProtocol))
    assert shared == {
        "connection_lost",
        "connection_made",
        "data_received",
        "on_body",
        "on_headers_complete",
        "on_message_complete",
        "on_response_complete",
        "send_400_response",
    }, f"uvicorn {uvicorn.__version__}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("capture_signals", ["self"]),
        ("startup", ["self", "sockets"]),
        ("serve", ["self", "sockets"]),
        ("main_loop", ["self"]),
        ("on_tick", ["self", "counter"]),
    ],
)
def test_a_method_of_the_server_has_its_parameters(name: str, expected: list[str]) -> None:
    assert parameters(getattr(uvicorn.Server, name, None)) == expected, f"uvicorn {uvicorn.__version__}"


def test_the_server_knows_the_tasks_of_its_requests() -> None:
    assert ServerState().tasks == set()
