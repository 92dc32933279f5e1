"""What dies under a Triton backend is noticed, told as an error that may be tried elsewhere, and repaired."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from actors.triton.backend.backend import TritonBackend
from actors.triton.backend.errors import ModelDead, NotLoaded, ServerGone
from orchestration.errors import BackendFailed, OrchestraError, Unavailable
from orchestration.messages import Generation
from tests.actors.triton.backend.repository import answered, backend_for, chat_model, saying
from tests.fixtures.eventually import eventually
from tests.fixtures.triton import RunningTriton

BACK_S = 60.0


@pytest.fixture
def fragile(own_triton: RunningTriton) -> Iterator[RunningTriton]:
    """A server of the test's own, which is killed at the end: to stop in good order takes it seconds."""
    yield own_triton
    own_triton.kill()


async def begun(backend: TritonBackend, generation: Generation) -> asyncio.Task[None]:
    """A task that reads the rest of an answer whose first output was read."""
    first = asyncio.Event()

    async def read() -> None:
        async with aclosing(backend.generate(generation)) as outputs:
            async for _ in outputs:
                first.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(first.wait(), BACK_S)
    return task


async def back(backend: TritonBackend, name: str) -> None:
    """Wait until the model answers again."""

    async def answers() -> bool:
        try:
            return (await answered(backend, saying(name, "count 2")))[0] == "w0 w1 "
        except (BackendFailed, Unavailable):
            return False

    await eventually(answers, within_s=BACK_S)


async def failed(task: asyncio.Task[None], kind: type[OrchestraError]) -> OrchestraError:
    with pytest.raises(kind) as raised:
        await asyncio.wait_for(task, BACK_S)
    assert raised.value.retryable
    return raised.value


async def test_a_model_whose_process_was_killed_is_noticed_and_brought_back(
    fragile: RunningTriton,
) -> None:
    """Triton says nothing of it: the stream hangs, and the model is called ready."""
    name = chat_model(fragile)
    async with backend_for(fragile, name) as backend:
        task = await begun(backend, saying(name, "count 100000 every 0.05"))
        for pid in fragile.stubs():
            os.kill(pid, signal.SIGKILL)
        error = await failed(task, OrchestraError)
        if isinstance(error, Unavailable):  # seldom, Triton ends with the process that it spoke with
            await asyncio.to_thread(fragile.process.wait, 10)
            await asyncio.to_thread(fragile.restart)
        await back(backend, name)


async def test_a_killed_process_is_noticed_though_nothing_runs(fragile: RunningTriton) -> None:
    name = chat_model(fragile)
    async with backend_for(fragile, name) as backend:
        before = fragile.stubs()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: set(fragile.stubs()) - set(before), within_s=BACK_S)
        await back(backend, name)


async def test_a_model_that_falls_silent_is_left_and_loaded_anew(fragile: RunningTriton) -> None:
    """Its process answers, and what computes the tokens does not."""
    name = chat_model(fragile)
    async with backend_for(fragile, name, token_timeout_s=0.5, first_token_timeout_s=0.5) as backend:
        for script in ("hang after 2", "hang"):
            with pytest.raises(BackendFailed, match=r"no output within 0.5 s"):
                await answered(backend, saying(name, script))
            await back(backend, name)


async def test_one_silent_answer_does_not_condemn_a_model_that_gives_others(
    fragile: RunningTriton,
) -> None:
    name = chat_model(fragile)
    async with backend_for(fragile, name, token_timeout_s=0.5) as backend:
        other = await begun(backend, saying(name, "count 60 every 0.05"))
        with pytest.raises(BackendFailed, match=r"no output within 0.5 s"):
            await answered(backend, saying(name, "hang after 2"))
        await other
        assert (await answered(backend, saying(name, "count 1")))[0] == "w0 "


async def test_a_server_that_was_killed_gets_its_models_back_when_it_is_there_again(
    fragile: RunningTriton,
) -> None:
    name = chat_model(fragile)
    async with backend_for(fragile, name) as backend:
        task = await begun(backend, saying(name, "count 100000 every 0.05"))
        fragile.kill()
        error = await failed(task, Unavailable)
        assert fragile.address in str(error)
        with pytest.raises(Unavailable):
            await answered(backend, saying(name, "count 1"))
        await asyncio.to_thread(fragile.restart)
        await back(backend, name)


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (ServerGone("no Triton server answers"), Unavailable),
        (NotLoaded("the model is not loaded"), Unavailable),
        (ModelDead("the model's process died"), BackendFailed),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, OrchestraError) else value.__name__,
)
async def test_an_answer_that_a_reload_cuts_off_fails_by_the_reason_of_the_reload(
    fragile: RunningTriton, trouble: OrchestraError, kind: type[OrchestraError]
) -> None:
    """The watch may see a dead server before the stream does."""
    name = chat_model(fragile)
    async with backend_for(fragile, name) as backend:
        task = await begun(backend, saying(name, "count 100000 every 0.05"))
        await backend._loaded[name]._revive(trouble)
        error = await failed(task, kind)
        assert str(trouble) in str(error)
        await back(backend, name)


async def test_a_model_that_somebody_unloads_finishes_its_answers_and_comes_back(
    fragile: RunningTriton,
) -> None:
    name = chat_model(fragile)
    async with backend_for(fragile, name) as backend:
        answering = asyncio.create_task(answered(backend, saying(name, "count 20 every 0.05")))
        await begun(backend, saying(name, "count 2"))
        await asyncio.to_thread(fragile.unload, name)
        assert len((await answering)[0].split()) == 20
        await back(backend, name)


async def test_unloading_waits_for_the_answers_at_work(fragile: RunningTriton) -> None:
    name = chat_model(fragile)
    async with backend_for(fragile, name) as backend:
        task = await begun(backend, saying(name, "count 20 every 0.05"))
        await backend.unload(name)
        assert task.done()
        await task
        assert not backend.loaded
        with pytest.raises(BackendFailed, match="is not loaded"):
            await answered(backend, saying(name, "count 1"))
        await backend.load(name)
        assert (await answered(backend, saying(name, "count 1")))[0] == "w0 "
