"""Load on several gateways from outside: each request goes on until it is answered once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from secrets import token_hex

import aiohttp

from actors.bus.bus import Bus, BusSettings
from actors.bus.jetstream import enqueue
from orchestration.errors import OrchestraError

UNSERVED = "generations.batch.nobody-serves-it"
"""The queue of a model that no node has: nobody takes work from it."""
PER_QUEUE = 900
"""A queue takes 1,000 of one model."""
TIMEOUT = aiohttp.ClientTimeout(total=60)
RETRY_S = 0.1


@dataclass(slots=True)
class Answers:
    """`texts` by prompt, one list entry an answer; `errors` counts what was answered with an error."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)

    def must_be_whole(self, count: int) -> None:
        """Every prompt was answered once, with its own text."""
        assert len(self.texts) == count
        wrong = {prompt: texts for prompt, texts in self.texts.items() if texts != [prompt]}
        assert not wrong, wrong


async def ask_all(
    gateways: Callable[[], Sequence[str]],
    count: int,
    *,
    at_once: int = 16,
    model: str = "echo",
    answered: Callable[[int], None] = lambda number: None,
) -> Answers:
    """`count` different prompts, in turn over the gateways that `gateways` names at the time.

    Only a request that was answered with an error, or whose gateway is gone, is asked again.
    """
    answers, places = Answers(), asyncio.Semaphore(at_once)

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        prompt = f"question number {number}"
        words = len(prompt.split())  # the echo goes on for as many tokens as it may
        body = {
            "model": model,
            "max_tokens": words,
            "messages": [{"role": "user", "content": prompt}],
        }
        async with places:
            attempt = number
            while True:
                urls = gateways()
                attempt += 1
                url = f"{urls[attempt % len(urls)]}/v1/chat/completions"
                try:
                    async with session.post(url, json=body, timeout=TIMEOUT) as reply:
                        found = await reply.json()
                except (aiohttp.ClientError, TimeoutError) as error:
                    answers.errors[type(error).__name__] += 1
                    continue
                if reply.status == 200:
                    text = found["choices"][0]["message"]["content"]
                    answers.texts.setdefault(prompt, []).append(text)
                    answered(len(answers.texts))
                    return
                answers.errors[f"{reply.status} {found['error']['code']}"] += 1
                await asyncio.sleep(RETRY_S)

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(session, number))
    return answers


class Publisher:
    """Puts batch work for a model that nobody serves on the queue, and remembers what was acknowledged."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.stored: dict[int, str] = {}
        self.refused: Counter[str] = Counter()
        self.stop = asyncio.Event()
        self.name = token_hex(4)

    async def run(self, size: int = 256) -> None:
        """One after another until `stop`; what was not acknowledged is counted and left."""
        number = 0
        while not self.stop.is_set():
            number += 1
            name = f"work {number}"
            try:
                queue = f"{UNSERVED}-{self.name}-{number // PER_QUEUE}"
                sequence = await enqueue(self.bus, queue, name.encode().ljust(size), {}, timeout=2)
                self.stored[sequence] = name
            except OrchestraError as error:
                self.refused[error.code] += 1
                await asyncio.sleep(RETRY_S)

    async def lost(self) -> list[str]:
        """What was acknowledged and is not in the queue."""
        gone = []
        for sequence, name in self.stored.items():
            body = b'{"seq":%d}' % sequence
            reply = await self.bus.request("$JS.API.DIRECT.GET.GENERATIONS", body, timeout=30)
            if reply.status or reply.data.rstrip() != name.encode():
                gone.append(name)
        return gone


OPENED: list[Bus] = []


async def connect(url: str) -> Bus:
    """A connection that is closed after the test."""
    OPENED.append(await Bus.connect(BusSettings(url=url), name="tests"))
    return OPENED[-1]
