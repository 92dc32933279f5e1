"""An engine that fails leaves nobody waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.engine.kv import KvCache
from actors.engine.loading import ChatModel
from actors.engine.onnx_backend import OnnxBackend
from actors.engine.sessions.onnx import OnnxSession
from actors.engine.settings import OnnxSettings
from orchestration.errors import BackendFailed, OrchestraError, Unavailable
from tests.actors.engine.onnx.asking import DEADLINE_S, MODEL, ask, chat, generating
from tests.fixtures.eventually import eventually


@pytest.fixture
async def own(chat_folder: Path) -> AsyncIterator[OnnxBackend]:
    """A backend to break: two slots, memory for about 200 tokens, stops after three failures in a row."""
    settings = OnnxSettings(
        slots=2, max_waiting=8, kv_cache_bytes=200 * 46080, prefix_cache_bytes=0, max_failures=3
    )
    backend = OnnxBackend([chat_folder], settings)
    await backend.start()
    yield backend
    await backend.close()


def break_decode(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the next `times` decode steps of any session fail, as a lost device would."""
    real = OnnxSession.decode
    left = [times]

    def failing(self: OnnxSession, tokens: NDArray[np.int64], lengths: NDArray[np.int32]) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise RuntimeError("the device is gone")
        return real(self, tokens, lengths)

    monkeypatch.setattr(OnnxSession, "decode", failing)


async def test_a_failed_step_fails_all_at_work_and_the_engine_goes_on(
    own: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await ask(own, chat("Hello", max_tokens=8))
    break_decode(monkeypatch, times=1)
    outcomes = await asyncio.gather(
        *(ask(own, chat(f"Hello {n}", max_tokens=20)) for n in range(2)), return_exceptions=True
    )
    assert any(isinstance(each, BackendFailed) for each in outcomes)
    failed = [each for each in outcomes if isinstance(each, BackendFailed)]
    assert all("the device is gone" in str(each) for each in failed)
    assert own.stats[0].healthy
    assert own.stats[0].failures == 1
    assert (await ask(own, chat("Hello", max_tokens=8))).text == before.text


async def test_an_engine_that_keeps_failing_stops_and_says_so_at_once(
    own: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_decode(monkeypatch, times=1000)
    for _ in range(3):
        with pytest.raises(BackendFailed, match="the device is gone"):
            await ask(own, chat("Hello", max_tokens=8))
    await eventually(lambda: not own.stats[0].healthy, within_s=DEADLINE_S)
    with pytest.raises(BackendFailed, match="has stopped"):
        await ask(own, chat("Hello", max_tokens=8))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_dies_leaves_nobody_waiting(
    own: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(OnnxSession, "decode", dying)
    waiting = [asyncio.create_task(ask(own, chat(f"Hello {n}", max_tokens=50))) for n in range(5)]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, BackendFailed) for each in outcomes)
    assert not own.stats[0].healthy


async def test_closing_ends_what_runs_and_refuses_what_comes(own: OnnxBackend) -> None:
    running = asyncio.create_task(ask(own, chat("Tell a story.", max_tokens=150)))
    await eventually(lambda: own.stats[0].running == 1, within_s=DEADLINE_S)
    await own.close()
    await own.close()
    with pytest.raises(OrchestraError, match="closed"):
        await running
    with pytest.raises(Unavailable):
        await ask(own, chat("Hello"))


async def test_memory_bounds_who_runs_and_who_waits(own: OnnxBackend) -> None:
    # Each may come to use about 140 tokens, so the second has to wait although a slot is free.
    async with generating(own, chat("Tell a story.", max_tokens=100)) as first:
        await anext(first)
        second = asyncio.create_task(ask(own, chat("Tell another.", max_tokens=100)))
        await eventually(lambda: own.stats[0].waiting == 1, within_s=DEADLINE_S)
        await anext(first)
        assert own.stats[0].running == 1
    assert (await second).finish.usage.completion_tokens > 0
    model = own._served[MODEL]
    assert isinstance(model, ChatModel)
    kv = model.engine._parts.kv
    assert isinstance(kv, KvCache)
    assert sum(kv.touched) <= own.stats[0].kv_tokens_limit


async def test_an_answer_ends_where_the_memory_of_its_context_ends(own: OnnxBackend) -> None:
    context = own.models[0].context_tokens
    answer = await ask(own, chat("la " * 100, max_tokens=1000, stop=("never",)))
    usage = answer.finish.usage
    assert usage.prompt_tokens + usage.completion_tokens <= context
    if answer.finish.reason == "length":
        assert usage.prompt_tokens + usage.completion_tokens == context
