"""What callers of `orchestra up` hear while the disk of its data folder is full."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.fixtures.eventually import eventually
from tests.fixtures.node_client import ask as ask_over_nats
from tests.fixtures.process import orchestra
from tests.fixtures.small_disk import small_disk

SMALL_MB = 32
BODY = {"model": "echo", "messages": [{"role": "user", "content": "one two"}]}


async def call(http: aiohttp.ClientSession, path: str, body: dict[str, Any] | None) -> tuple[int, str]:
    method = "GET" if body is None else "POST"
    async with http.request(method, path, json=body) as answer:
        return answer.status, await answer.text()


async def answered(http: aiohttp.ClientSession) -> bool:
    status, _ = await call(http, "/v1/chat/completions", BODY)
    return status == 200


async def test_a_full_disk_is_named_in_every_answer_and_by_readyz_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", SMALL_MB) as disk:
        words = ("up", "--data", str(disk), "--http", "127.0.0.1:0", "--no-model")
        with orchestra(*words) as up:
            line = await asyncio.to_thread(up.wait_for, "Orchestra is ready")
            url, nats = re.findall(r"(?:http|nats)://\S+", line)
            with orchestra("node", "--backend", "echo", "--nats", nats, "--id", "echo-1") as node:
                await asyncio.to_thread(node.wait_for, "serves echo")
                async with aiohttp.ClientSession(url) as http:
                    await eventually(lambda: answered(http))
                    ballast = disk / "ballast"
                    with suppress(OSError):  # that is all there was
                        ballast.write_bytes(b" " * SMALL_MB * 2**20)
                    full = f"the disk of the data folder {disk}/nats is full"

                    async def not_ready() -> bool:
                        status, text = await call(http, "/readyz", None)
                        return status == 503 and full in text

                    await eventually(not_ready)
                    asked = {"/v1/chat/completions": BODY, "/v1/jobs": BODY} | {
                        "/v1/chat/completions?": BODY | {"stream": True, "model": "orchestra/single"}
                    }
                    for path, body in asked.items():
                        status, text = await call(http, path, body)
                        assert (status, json.loads(text)["error"]["code"]) == (507, "storage_full"), text
                        assert full in text
                    said = await asyncio.to_thread(ask_over_nats, nats, "request", {"body": BODY})
                    assert full in said["messages"][0]["text"]
                    ballast.unlink()
                    await eventually(lambda: answered(http), within_s=40)
                    assert (await call(http, "/readyz", None))[0] == 200
