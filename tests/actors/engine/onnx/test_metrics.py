"""The metrics of engines, read while they work."""

from __future__ import annotations

import asyncio

from actors.engine.onnx_backend import OnnxBackend
from actors.telemetry.exposition import exposition
from tests.actors.engine.onnx.asking import MODEL, ask, chat
from tests.fixtures.eventually import eventually
from tests.fixtures.prometheus import complaints
from tests.fixtures.scrape import Scrape, parse


async def scrape() -> Scrape:
    return parse((await exposition()).decode())


async def test_batch_keys_and_values_and_steps_of_a_model_are_exported(
    backend: OnnxBackend, promtool: str
) -> None:
    before = await scrape()
    answers = [asyncio.ensure_future(ask(backend, chat("Count to ten.", max_tokens=40))) for _ in range(3)]

    async def together() -> bool:
        scraped = await scrape()
        kv = scraped.total("orchestra_engine_kv_tokens", model=MODEL)
        assert kv <= scraped.total("orchestra_engine_kv_tokens_limit", model=MODEL)
        return scraped.total("orchestra_engine_batch_size", model=MODEL) == 3 and kv > 0

    await eventually(together)
    tokens = sum(each.finish.usage.completion_tokens for each in await asyncio.gather(*answers))
    after = await scrape()
    steps = after.total("orchestra_engine_steps_total", model=MODEL) - before.total(
        "orchestra_engine_steps_total", model=MODEL
    )
    assert 0 < steps < tokens  # some steps had a batch
    assert await asyncio.to_thread(complaints, promtool, after.text) == ""
