"""An operator changes settings and keys with commands, while three gateways run as processes of their own."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from actors.cli.main import root
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import Process, orchestra


@pytest.fixture
def processes(own_nats: RunningNats, tmp_path: Path) -> Iterator[list[Process]]:
    """Three gateways and a node, ready."""
    usual = ("--nats", own_nats.url, "--data", str(tmp_path / "data"))
    with ExitStack() as stack:
        started = [
            stack.enter_context(orchestra("gateway", *usual, "--http", "127.0.0.1:0")) for _ in range(3)
        ]
        started.append(stack.enter_context(orchestra("node", *usual, "--backend", "echo")))
        for process in started:
            process.wait_for("Orchestra ")
        yield started
        for process in started:
            process.send(signal.SIGTERM)


async def command(nats: RunningNats, *words: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of `orchestra WORDS`."""
    ended = await asyncio.to_thread(CliRunner().invoke, root, [*words, "--nats", nats.url])
    return ended.exit_code, ended.stdout, ended.stderr


async def statuses(urls: list[str], key: str = "") -> list[int]:
    """The status of a chat at each gateway."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"model": "echo", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    async with aiohttp.ClientSession(headers=headers) as http:
        found: list[int] = []
        for url in urls:
            async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
                found.append(answer.status)
        return found


async def test_commands_change_what_three_processes_do(
    own_nats: RunningNats, processes: list[Process]
) -> None:
    urls = [re.findall(r"gateway is at (http://\S+)", process.said)[0] for process in processes[:3]]

    async def ready() -> bool:
        return await statuses(urls) == [200] * 3

    await eventually(ready)
    code, key, said = await command(own_nats, "keys", "add", "app", "--yes", "--reason", "a new team")
    assert code == 0, said
    assert "4 of 4 processes follow" in said
    assert await statuses(urls) == [401] * 3
    assert await statuses(urls, key.strip()) == [200] * 3
    code, listed, _ = await command(own_nats, "keys", "list")
    assert (code, key.strip() in listed, "app" in listed) == (0, False, True)

    code, _, said = await command(own_nats, "config", "set", "gateway.limits.per_caller.tokens_per_minute=1")
    assert (code, "add --yes" in said) == (2, True)
    assert "not set → 1" in said
    code, text, _ = await command(
        own_nats, "config", "set", "gateway.limits.per_caller.tokens_per_minute=1", "--yes"
    )
    assert (code, text) == (0, "change 2: 4 of 4 processes follow\n")
    assert await statuses(urls, key.strip()) == [400] * 3, "no request is that small"
    code, text, _ = await command(own_nats, "config", "gateway.limits")
    assert re.search(r"per_caller\.tokens_per_minute +1 +cluster \(revision 2, by [^)]+@[^)]+\) +hot", text)

    code, _, said = await command(own_nats, "config", "set", "gateway.max_in_flight=0", "--yes")
    assert (code, "greater than or equal to 1" in said) == (2, True)
    code, _, said = await command(own_nats, "config", "set", "gateway.http=0.0.0.0:80", "--yes")
    assert (code, "restart" in said) == (2, True)

    code, text, said = await command(own_nats, "config", "undo", "2", "--yes", "--json")
    assert code == 0, said
    assert json.loads(text)["change"]["undoes"] == 2
    assert await statuses(urls, key.strip()) == [200] * 3
    code, _, said = await command(own_nats, "config", "undo", "2", "--yes")
    assert (code, "is undone already" in said) == (2, True)
    code, text, _ = await command(own_nats, "config", "history")
    assert "a new team" in text
    assert key.strip() not in text
    code, text, _ = await command(own_nats, "config", "followers", "--json")
    assert [process["revision"] for process in json.loads(text)["data"]] == [3] * 4
    code, text, _ = await command(own_nats, "keys", "remove", "app", "--open", "--yes")
    assert code == 0
    assert await statuses(urls) == [200] * 3
