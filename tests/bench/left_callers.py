"""What callers that leave cost the next one.

`python -m tests.bench.left_callers` has N callers ask a node of two slots over HTTP for long answers, and
leave all at once when the gateway has all of them; when it has heard of that, one more asks. The time of its
whole answer of 4 tokens stands beside that of one that nobody left before it. In the same way callers of
`orchestra/single`, whose runs wait for a coordinator. A queue holds 1,000 generations of a model, so 5,000
callers ask for six. All is one process here, but for the nats-server.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from urllib.parse import urlsplit

import aiohttp
import uvloop

from actors.backends.echo import EchoBackend, EchoSettings
from actors.gateway.settings import GatewaySettings
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually

MODELS = tuple(f"echo-{n}" for n in range(6))
COUNTS = (200, 1000)


def body(model: str, tokens: int) -> dict[str, object]:
    messages = [{"role": "user", "content": "these words go on and on"}]
    return {"model": model, "messages": messages, "max_tokens": tokens, "stream": True}


async def leave(cluster: Cluster, count: int, models: tuple[str, ...]) -> float:
    """So many ask and close their connections; seconds until the gateway has heard of all that."""
    at_work = cluster.running.gateway.streams
    where = urlsplit(cluster.url)
    writers: list[asyncio.StreamWriter] = []
    for n in range(count):
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        data = json.dumps(body(models[n % len(models)], 2000)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        writers.append(writer)
        if n % 50 == 49:
            await asyncio.sleep(0.02)  # a listening socket holds only so many that knock
    await eventually(lambda: at_work.open_streams == count, within_s=60)
    began = time.perf_counter()
    for writer in writers:
        writer.transport.abort()
    await eventually(lambda: at_work.open_streams == 0, within_s=60)
    return time.perf_counter() - began


async def one(cluster: Cluster, model: str) -> float:
    """Seconds that one more waits for its whole answer."""
    began = time.perf_counter()
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{cluster.url}/v1/chat/completions", json=body(model, 4)) as reply:
            text = await reply.text()
            assert reply.status == 200, text
            assert "[DONE]" in text, text
    return time.perf_counter() - began


async def measure(cluster: Cluster) -> None:
    for what, models in (("chats", MODELS[:1]), ("chats", MODELS), ("runs", ("orchestra/single",))):
        alone = min([await one(cluster, models[0]) for _ in range(5)])
        for count in COUNTS if len(models) == 1 else (5000,):
            leaving = await leave(cluster, count, models)
            took = await one(cluster, models[0])
            print(
                f"{count:5} {what} left within {leaving * 1e3:5.0f} ms: the next one {took * 1e3:5.0f} ms;"
                f" alone {alone * 1e3:4.0f} ms",
                flush=True,
            )
            await asyncio.sleep(3)


def main() -> None:
    logging.disable(logging.WARNING)
    node = EchoBackend(EchoSettings(models=MODELS, slots=2, speed=50))
    gateway = GatewaySettings(
        http="127.0.0.1:0", max_in_flight=6000, max_connections=8000, max_connections_per_address=8000
    )
    with running_cluster([("node", node)], gateway=gateway, agents=True) as cluster:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(cluster))


if __name__ == "__main__":
    main()
