"""What all tests share: the event loop of the product, a nats-server, and a bus to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from actors.bus.bus import Bus, BusSettings
from tests.fixtures.markers import mark, sort
from tests.fixtures.nats import RunningNats, nats_server, own_nats
from tests.fixtures.prometheus import prometheus, promtool
from tests.fixtures.spans import spans
from tests.fixtures.time_limit import pytest_runtest_teardown
from tests.fixtures.triton import own_triton, triton_server

__all__ = [
    "nats_server",
    "own_nats",
    "own_triton",
    "prometheus",
    "promtool",
    "pytest_runtest_teardown",
    "spans",
    "triton_server",
]


def pytest_configure() -> None:
    """Keep what the commands note for each other apart from what runs on this machine beside the tests.

    A shell that starts the tests in the background has them ignore SIGINT, and so would every process that
    they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("tests")
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="orchestra-tests-state-")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function):
            mark(item)
    sort(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.fixtures.parallel import FileScheduling  # not needed where tests run in one process

    return FileScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Workers send their reports as UTF-8, which has no half surrogate pairs."""
    return encodable((yield))


def encodable(value: Any) -> Any:
    """The same report with half surrogate pairs written out: workers send their reports as UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {encodable(key): encodable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(encodable(each) for each in value)
    return value


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on uvloop, as Orchestra does."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def bus(nats_server: RunningNats) -> AsyncIterator[Bus]:
    """A connection to the shared server."""
    connected = await Bus.connect(BusSettings(url=nats_server.url), name="test")
    yield connected
    await connected.close()
