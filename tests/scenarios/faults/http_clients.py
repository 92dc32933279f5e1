"""Many HTTP clients at once, which check every event of their streams and count what they got."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.fixtures.eventually import eventually

TOKENS = 24
AT_ONCE = 60
PAUSE_S = 0.05
"""Before one who was refused asks again."""
TIMEOUT = aiohttp.ClientTimeout(total=90)


@dataclass(slots=True)
class HttpClients:
    """Each client asks for one stream, and asks again only when its request was refused.

    `nodes` says by the number of a client which node ended its whole answer, `refused` counts
    requests that were not accepted, and `broken` has what clients had read when their gateway was gone: such
    a request may have been accepted, so nobody asks it again.
    """

    urls: Callable[[], Sequence[str]]
    model: str = "echo"
    count: int = 300
    begun: int = 0
    """Streams that have had a first chunk."""
    nodes: dict[int, str] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        return len(self.nodes)

    def by(self) -> Counter[str]:
        """Answers by the node that ended them."""
        return Counter(self.nodes.values())

    async def run(self) -> None:
        """All of them, `AT_ONCE` at a time. An answer that is not whole fails it."""
        places = asyncio.Semaphore(AT_ONCE)

        async def call(session: aiohttp.ClientSession, number: int) -> None:
            async with places:
                await self._call(session, number)

        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as session:
            async with asyncio.TaskGroup() as group:
                for number in range(self.count):
                    group.create_task(call(session, number))

    def must_balance(self, *, broken: int = 0) -> None:
        """Every request was answered, once and whole, but for so many at most whose gateway died."""
        assert len(self.nodes) + len(self.broken) == self.count
        assert not self.nodes.keys() & self.broken.keys()
        assert len(self.broken) <= broken, self.broken

    async def _call(self, session: aiohttp.ClientSession, number: int) -> None:
        said: list[str] = []
        attempt = number
        while True:
            urls = self.urls()
            attempt += 1
            try:
                async with session.post(
                    f"{urls[attempt % len(urls)]}/v1/chat/completions", json=self._body(number)
                ) as reply:
                    if reply.status == 200:
                        node = await self._read(number, reply, said)
                        assert number not in self.nodes
                        self.nodes[number] = node
                        return
                    assert reply.status in (429, 503), await reply.text()
                    self.refused[(await reply.json())["error"]["code"]] += 1
            except aiohttp.ClientConnectorError:
                self.refused["no gateway"] += 1
            except (aiohttp.ClientError, ConnectionError):
                self.broken[number] = "".join(said)
                return
            await asyncio.sleep(PAUSE_S)

    async def _read(self, number: int, reply: aiohttp.ClientResponse, said: list[str]) -> str:
        """The node that ended it; `said` grows by the text of each event."""
        whole, node, done = self._whole(number), "", 0
        async for line in reply.content:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                done += 1
                continue
            event = json.loads(line[6:])
            assert "error" not in event, f"caller {number} was told after {said}: {event}"
            (choice,) = event["choices"]
            assert not node, f"caller {number} got more after the end: {event}"
            text = choice["delta"].get("content") or ""
            self.begun += bool(text and not said)
            if text:
                said.append(text)
            assert whole.startswith("".join(said)), f"caller {number} got {said}"
            if choice["finish_reason"]:
                node = event["orchestra"]["node"]
        assert (done, "".join(said)) == (1, whole), f"caller {number} got {said}"
        assert node
        return str(node)

    def _body(self, number: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": words(number)}]
        return {"model": self.model, "messages": messages, "max_tokens": TOKENS, "stream": True}

    @staticmethod
    def _whole(number: int) -> str:
        """Echo says it again and again, up to `TOKENS`."""
        asked = words(number).split()
        return " ".join(asked[n % len(asked)] for n in range(TOKENS))


def words(number: int) -> str:
    return f"caller {number} wants all of this"


@asynccontextmanager
async def under_load(clients: HttpClients) -> AsyncIterator[RunningLoad]:
    """Run the clients during the block, which ends when all have an answer."""
    async with asyncio.TaskGroup() as group:
        load = RunningLoad(clients, group.create_task(clients.run()))
        yield load


@dataclass(frozen=True, slots=True)
class RunningLoad:
    """Clients at work."""

    clients: HttpClients
    task: asyncio.Task[None]

    async def until(self, answered: int) -> None:
        """Wait until so many are answered; fails when all are, as then a fault would come too late."""
        assert answered < self.clients.count
        await eventually(lambda: self.clients.answered >= answered or self.task.done(), within_s=60)
        assert not self.task.done(), "all was over before the fault"
