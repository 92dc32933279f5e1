from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.scenarios.cluster import asking


@pytest.fixture(autouse=True)
async def no_connection_is_left() -> AsyncIterator[None]:
    """A test that fails leaves its connections open, and an open one hides why it failed."""
    yield
    while asking.OPENED:
        await asking.OPENED.pop().close()
