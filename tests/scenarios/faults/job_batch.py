"""Submits jobs over HTTP until each is accepted, and checks that each is recorded once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

import aiohttp

from actors.bus.bus import Bus
from tests.fixtures.jetstream import api

MAX_PARALLEL = 16
PAUSE_S = 0.1
TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass(slots=True)
class JobBatch:
    """`count` jobs, each with its own Idempotency-Key; `ids` are those of the accepted ones by number."""

    urls: Callable[[], Sequence[str]]
    count: int
    ids: dict[int, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: token_hex(4))

    def question(self, number: int) -> str:
        return f"job {number} of {self.name} is to be done once"

    async def submit(self) -> None:
        """Submit all jobs, `MAX_PARALLEL` at a time."""
        semaphore = asyncio.Semaphore(MAX_PARALLEL)

        async def one(number: int) -> None:
            async with semaphore:
                text = self.question(number)
                body = {
                    "model": "echo",
                    "messages": [{"role": "user", "content": text}],
                    "max_tokens": len(text.split()),
                }
                found = await self._ask("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": text})
                self.ids[number] = found["id"]

        async with asyncio.TaskGroup() as group:
            for number in range(self.count):
                group.create_task(one(number))
        assert len(set(self.ids.values())) == self.count

    async def until_done(self, *, within_s: float = 60) -> None:
        """Wait until all have succeeded. Fails when one ends otherwise."""
        async with asyncio.timeout(within_s):
            while (found := await self._statuses()) != Counter(succeeded=self.count):
                assert not found["failed"] + found["dead"] + found["cancelled"], found
                await asyncio.sleep(PAUSE_S)

    async def check_recorded_once(self, bus: Bus) -> None:
        """Check that each job has the answer to its own question, and that no result was written twice."""
        await self.until_done()
        for number, job_id in self.ids.items():
            job = await self._ask("GET", f"/v1/jobs/{job_id}")
            assert job["status"] == "succeeded", job
            assert job["result"]["choices"][0]["message"]["content"] == self.question(number)
        state = (await api(bus, "STREAM.INFO.KV_results"))["state"]
        assert state["messages"] == state["last_seq"] == state["num_subjects"] >= self.count

    async def _statuses(self) -> Counter[str]:
        found: Counter[str] = Counter()
        before = 0
        while True:
            page = await self._ask("GET", f"/v1/jobs?limit=100&before={before}")
            mine = set(self.ids.values())
            found.update(job["status"] for job in page["data"] if job["id"] in mine)
            before = page["next"]
            if not before:
                return found

    async def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Send the request until a gateway accepts it."""
        attempt = 0
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            while True:
                urls = self.urls()
                attempt += 1
                try:
                    async with session.request(method, f"{urls[attempt % len(urls)]}{path}", **more) as reply:
                        if reply.status < 300:
                            body: dict[str, Any] = json.loads(await reply.read())
                            return body
                        assert reply.status in (429, 503, 504), await reply.text()
                except (aiohttp.ClientError, ConnectionError, TimeoutError, json.JSONDecodeError):
                    pass
                await asyncio.sleep(PAUSE_S)
