"""What all tests share: the event loop of the product, a nats-server, and a bus to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from actors.bus.bus import Bus, BusSettings
from tests.fixtures.nats import RunningNats, nats_server, own_nats
from tests.fixtures.spans import spans
from tests.fixtures.triton import own_triton, triton_server

__all__ = ["nats_server", "own_nats", "own_triton", "spans", "triton_server"]


def pytest_configure() -> None:
    """Keep what the commands note for each other apart from what runs on this machine beside the tests.

    A shell that starts the tests in the background has them ignore SIGINT, and so would every process that
    they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="orchestra-tests-state-")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on uvloop, as Orchestra does."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def bus(nats_server: RunningNats) -> AsyncIterator[Bus]:
    """A connection to the shared server."""
    connected = await Bus.connect(BusSettings(url=nats_server.url), name="test")
    yield connected
    await connected.close()
