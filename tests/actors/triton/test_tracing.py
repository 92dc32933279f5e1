"""One trace from a node into its Triton, as an OTLP collector is told it by both."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from secrets import token_hex

from tritonclient.grpc import InferenceServerClient

from actors.bus.bus import Bus
from actors.bus.subjects import NodeAddress
from actors.runtime.envelope import TRACE
from actors.runtime.service import ERROR_CODE
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    EmbeddingGeneration,
    Generation,
    LoadModel,
    Sampling,
    UnloadModel,
)
from tests.actors.triton.test_node import nodes
from tests.fixtures.collector import Collector, Span, collector
from tests.fixtures.eventually import eventually
from tests.fixtures.models import minilm_folder, models_folder, smollm2_folder
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import orchestra

CHAT, EMBEDDER = "smollm2-135m", "all-minilm-l6-v2"
NODE = NodeAddress("traced")
TRIES = 3
"""Triton 2.51 loses the spans of a few requests in three hundred."""
ROOT = "00f067aa0ba902b7"


def question(number: int) -> Generation:
    return ChatGeneration(
        id=f"chat.{number}",
        model=CHAT,
        messages=(ChatMessage(role="user", content="What do bees make?"),),
        sampling=Sampling(max_tokens=4),
    )


def text(number: int) -> Generation:
    return EmbeddingGeneration(id=f"text.{number}", model=EMBEDDER, inputs=("honey",))


async def said(bus: Bus, subject: str, body: bytes) -> str:
    """The id of the trace that the node was asked under."""
    trace = token_hex(16)
    headers = {TRACE: f"00-{trace}-{ROOT}-01"}
    reply = await bus.request(subject, body, headers=headers, timeout=120)
    assert not reply.header(ERROR_CODE), reply.data
    return trace


async def asked(bus: Bus, generation: Generation) -> str:
    await bus.subscribe(f"stream.{generation.id}", lambda message: None)
    return await said(bus, NODE.generate, generation.model_dump_json().encode())


def under_the_nodes(told: Collector, trace: str) -> list[Span]:
    """Triton's spans of the trace, once its first hangs under the node's, and the node's under the root."""
    spans = told.of_trace(trace)
    ours = {span.id for span in spans if span.service == "orchestra" and span.parent == ROOT}
    theirs = [span for span in spans if span.service == "triton-inference-server"]
    whole = any(span.name == "InferRequest" and span.parent in ours for span in theirs)
    return theirs if whole else []


async def test_tritons_spans_hang_under_the_nodes_and_its_watch_joins_no_trace(
    nats_server: RunningNats, bus: Bus, tmp_path: Path
) -> None:
    smollm2_folder(), minilm_folder()
    (tmp_path / "models").symlink_to(models_folder())
    words = (
        "node",
        "--backend",
        "triton",
        "--id",
        NODE.id,
        "--data",
        str(tmp_path),
        "--nats",
        nats_server.url,
    )
    async with collector() as told:
        with orchestra(
            *words,
            *("--serve", EMBEDDER, "--serve", CHAT),
            ORCHESTRA_TELEMETRY__OTLP_ENDPOINT=told.url,
            ORCHESTRA_TRITON_SERVER__RUNTIME="onnxruntime",
            ORCHESTRA_TRITON__WATCH_S="0.1",  # and so a model is asked whether it lives every second
        ) as process:
            await asyncio.to_thread(process.wait_for, f"node {NODE.id} serves", within_s=120)
            await said(bus, NODE.unload, UnloadModel(model=EMBEDDER).model_dump_json().encode())
            loading = await said(bus, NODE.load, LoadModel(model=EMBEDDER).model_dump_json().encode())
            (node,) = [each for each in await asyncio.to_thread(nodes, nats_server.url) if each.id == NODE.id]
            with InferenceServerClient(node.hardware.provider.split()[-1]) as client:
                await eventually(lambda: answers(client) > 0, within_s=60)  # the watch asked, and was heard
            texts = [await asked(bus, text(number)) for number in range(TRIES)]
            questions = [await asked(bus, question(number)) for number in range(TRIES)]
            of_text = await eventually(lambda: first_whole(told, texts), within_s=60)
            assert f"{EMBEDDER}-encoder" in {span.name for span in of_text}
            of_question = await eventually(lambda: first_whole(told, questions), within_s=60)
            assert CHAT in {span.name for span in of_question}
            assert {span.service for span in told.of_trace(loading)} == {"orchestra"}
            process.send(signal.SIGINT)  # the collector, in this loop, is told the last before the end
            assert await asyncio.to_thread(process.wait, within_s=60) == 0, process.said


def first_whole(told: Collector, traces: list[str]) -> list[Span]:
    """Triton's spans of the first trace that they have arrived of."""
    return next((found for trace in traces if (found := under_the_nodes(told, trace))), [])


def answers(client: InferenceServerClient) -> int:
    """How often the embedding model answered since it was loaded."""
    return int(client.get_inference_statistics(EMBEDDER).model_stats[0].inference_count)
