"""The chat model of `triton_models`, in a real tritonserver, asked by tritonclient alone."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio as grpc
from tritonclient.grpc import InferInput

from tests.actors.triton.llm import DEADLINE_S, ask, inputs, responses, write_llm
from tests.fixtures.eventually import eventually
from tests.fixtures.models import minilm_folder, smollm2_folder
from tests.fixtures.triton import RunningTriton

PARIS = "Which city is the capital of France?"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
    "required": ["city", "big"],
    "additionalProperties": False,
}
DYING = """
import sys

class TritonPythonModel(TritonPythonModel):
    def execute(self, requests):
        super().execute(requests)
        self.server._loop.loop.call_soon_threadsafe(sys.exit, 1)
"""
FAILING = """
from actors.engine.sessions.onnx import OnnxSession

def failing(*_):
    raise RuntimeError("the device is gone")

OnnxSession.decode = failing
"""


@pytest.fixture(scope="module", params=["onnxruntime", "torch"])
def model(triton_server: RunningTriton, request: pytest.FixtureRequest) -> Iterator[str]:
    """SmolLM2 in Triton by each runtime, with four slots."""
    name = f"llm-{request.param}"
    write_llm(triton_server.repository, name, smollm2_folder(), runtime=request.param, slots=4, max_waiting=4)
    triton_server.load(name)
    yield name
    triton_server.unload(name)


@pytest.fixture(scope="module")
def onnx_model(triton_server: RunningTriton) -> Iterator[str]:
    """SmolLM2 in onnxruntime for what does not depend on the runtime: one slot, one place to wait."""
    write_llm(triton_server.repository, "llm-one", smollm2_folder(), slots=1, max_waiting=1)
    triton_server.load("llm-one")
    yield "llm-one"
    triton_server.unload("llm-one")


@pytest.fixture
async def client(triton_server: RunningTriton) -> AsyncIterator[grpc.InferenceServerClient]:
    async with grpc.InferenceServerClient(triton_server.address) as made:
        yield made


def metric(server: RunningTriton, name: str, model: str) -> float:
    """The figure `orchestra_llm_NAME` of a model, 0 before it was told."""
    with urllib.request.urlopen(server.metrics_url, timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"orchestra_llm_{name}{{") and f'model="{model}"' in line:
                return float(line.rsplit(" ", 1)[1])
    return 0.0


async def shows(server: RunningTriton, model: str, name: str, value: float) -> None:
    """Wait until a figure is `value`."""

    async def reached() -> bool:
        return await asyncio.to_thread(metric, server, name, model) == value

    await eventually(reached, within_s=DEADLINE_S)


async def test_answers_stream_together_and_end_once(client: grpc.InferenceServerClient, model: str) -> None:
    asked = [PARIS, "Name three colours.", "What do bees make?", "What is 7 plus 5?", "Who wrote Hamlet?"]
    told = await asyncio.gather(*(ask(client, model, each, max_tokens=16) for each in asked))
    assert [(each.error, each.finals) for each in told] == [("", 1)] * 5
    assert all(len(each.pieces) > 3 for each in told)
    assert all(each.usage["completion_tokens"] == each.tokens <= 16 for each in told)
    assert {each.reason for each in told} <= {"stop", "length"}
    alone = await ask(client, model, asked[1], max_tokens=16)
    assert alone.text == told[1].text


async def test_one_response_holds_everything_where_no_stream_is_wanted(
    client: grpc.InferenceServerClient, model: str
) -> None:
    streamed = await ask(client, model, PARIS, max_tokens=9, logprobs=True)
    whole = await ask(client, model, PARIS, max_tokens=9, logprobs=True, stream=False)
    assert whole.pieces == [streamed.text]
    assert (whole.tokens, whole.reason) == (streamed.tokens, streamed.reason)
    assert len(whole.logprobs) == len(streamed.logprobs) == whole.tokens
    assert whole.logprobs[0]["logprob"] < 0


async def test_sampling_stops_guides_and_prefixes_are_honoured(
    client: grpc.InferenceServerClient, model: str
) -> None:
    story = {"temperature": 1.2, "seed": 11, "max_tokens": 12}
    first = await ask(client, model, "Tell a story.", **story)
    again = await ask(client, model, "Tell a story.", **story)
    assert again.text == first.text
    assert (await ask(client, model, "Tell a story.", **{**story, "seed": 12})).text != first.text
    stopped = await ask(client, model, PARIS, max_tokens=20, stop=["is"])
    assert (stopped.reason, stopped.text[-3:] != " is") == ("stop", True)
    plain = await ask(client, model, prompt="one two three four five six", max_tokens=4)
    assert (plain.tokens, plain.reason) == (4, "length")
    guided = await ask(client, model, PARIS, max_tokens=60, guide={"json_schema": SCHEMA})
    assert set(json.loads(guided.text)) == {"city", "big"}
    rest = await ask(
        client, model, PARIS, prefix='{"city": "Paris", ', prefix_tokens=6, guide={"json_schema": SCHEMA}
    )
    assert json.loads('{"city": "Paris", ' + rest.text)["city"] == "Paris"
    assert rest.usage["completion_tokens"] == 6 + rest.tokens


async def test_a_client_that_leaves_frees_its_slot(
    triton_server: RunningTriton, client: grpc.InferenceServerClient, onnx_model: str
) -> None:
    stream = responses(client, onnx_model, inputs("Tell a long story.", max_tokens=4000))
    async with asyncio.timeout(DEADLINE_S):
        await anext(stream)
        waiting = responses(client, onnx_model, inputs("Tell another.", max_tokens=4000))
        second = asyncio.ensure_future(anext(waiting))
        await shows(triton_server, onnx_model, "waiting", 1)
        assert metric(triton_server, "running", onnx_model) == 1
        refused = await ask(client, onnx_model, PARIS)
        assert refused.error.startswith("node_busy: ")
        second.cancel()
        await asyncio.wait([second])
        await stream.aclose()
        await shows(triton_server, onnx_model, "cancelled", 2)
    assert (await ask(client, onnx_model, PARIS, max_tokens=4)).tokens == 4
    await shows(triton_server, onnx_model, "running", 0)
    assert metric(triton_server, "first_tokens", onnx_model) >= 1
    assert metric(triton_server, "time_to_first_token_seconds", onnx_model) > 0


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "invalid_request: send either text_input or messages"),
        ({"text": "a", "prompt": "b"}, "invalid_request: send either text_input or messages"),
        ({"raw": {"messages": b"[{"}}, "invalid_request: messages is not JSON"),
        ({"raw": {"messages": b"{}"}}, "invalid_request: messages must be a JSON list"),
        ({"raw": {"messages": b"[]"}}, "invalid_request: messages is empty"),
        ({"raw": {"messages": b"\xff"}}, "invalid_request: messages is not UTF-8"),
        (
            {"text": "a", "raw": {"sampling_parameters": b"[1]"}},
            "invalid_request: sampling_parameters must be",
        ),
        ({"text": "a", "temperature": 5}, "invalid_request: sampling.temperature: "),
        ({"text": "a", "guide": {"regex": "("}}, "invalid_guide: "),
        ({"text": "word " * 9000}, "context_length_exceeded: the prompt has 90"),
    ],
)
async def test_what_cannot_be_answered_is_refused_by_code(
    client: grpc.InferenceServerClient, onnx_model: str, said: dict[str, Any], words: str
) -> None:
    assert (await ask(client, onnx_model, **said)).error.startswith(words)


async def test_an_input_of_another_type_or_shape_is_refused_by_triton(
    client: grpc.InferenceServerClient, onnx_model: str
) -> None:
    wrong_type = InferInput("prefix_tokens", [1], "INT64")
    wrong_type.set_data_from_numpy(np.array([1], np.int64))
    wrong_shape = InferInput("prefix_tokens", [2], "INT32")
    wrong_shape.set_data_from_numpy(np.array([1, 2], np.int32))
    for tensor, words in ((wrong_type, "INT64"), (wrong_shape, "[2]")):
        stream = responses(client, onnx_model, [*inputs(PARIS), tensor])
        async with asyncio.timeout(DEADLINE_S):
            _, error = await anext(stream)
        assert words in error.message()


async def test_a_failing_step_and_a_dying_loop_leave_nobody_waiting(
    triton_server: RunningTriton, client: grpc.InferenceServerClient
) -> None:
    for name, more in (("llm-failing", FAILING), ("llm-dying", DYING)):
        write_llm(triton_server.repository, name, smollm2_folder(), more=more)
        await asyncio.to_thread(triton_server.load, name)
    failed = await asyncio.gather(*(ask(client, "llm-failing", PARIS) for _ in range(3)))
    assert all("the device is gone" in each.error for each in failed)
    died = await asyncio.gather(*(ask(client, "llm-dying", PARIS) for _ in range(3)))
    assert all(each.error.startswith("shutting_down: the model's loop has ended") for each in died)
    assert (await ask(client, "llm-dying", PARIS)).error.startswith("shutting_down: ")
    for name in ("llm-failing", "llm-dying"):
        await asyncio.to_thread(triton_server.unload, name)


async def test_unloading_lets_what_runs_come_to_its_end(
    triton_server: RunningTriton, client: grpc.InferenceServerClient
) -> None:
    write_llm(triton_server.repository, "llm-leaving", smollm2_folder())
    await asyncio.to_thread(triton_server.load, "llm-leaving")
    running = asyncio.create_task(
        ask(client, "llm-leaving", "Tell a long story.", max_tokens=120, stop=["never"])
    )
    await shows(triton_server, "llm-leaving", "running", 1)
    await asyncio.to_thread(triton_server.unload, "llm-leaving")
    told = await running
    assert (told.error, told.finals) == ("", 1)
    assert told.usage["completion_tokens"] == told.tokens


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"runtime": "jax"}, "invalid runtime 'jax': write torch or onnxruntime"),
        ({"slots": "many"}, "parameter slots: "),
        ({"folder": minilm_folder}, "model 'all-minilm-l6-v2' is an embedding model"),
        ({"folder": lambda: Path("/nowhere")}, "/nowhere"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why(
    triton_server: RunningTriton, settings: dict[str, Any], words: str
) -> None:
    folder = settings.pop("folder", smollm2_folder)()
    name = f"llm-wrong-{abs(hash(words))}"
    write_llm(triton_server.repository, name, folder, **settings)
    with pytest.raises(AssertionError, match=re.escape(words)):
        triton_server.load(name)
