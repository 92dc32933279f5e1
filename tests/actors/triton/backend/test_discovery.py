"""What a Triton backend finds at a server, and what it says of what it cannot use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from actors.triton.backend.backend import TritonBackend
from actors.triton.backend.settings import TritonSettings
from orchestration.errors import BackendFailed, Unavailable, UnknownModel
from tests.actors.triton.backend.embeddings import vectors
from tests.actors.triton.backend.repository import (
    answered,
    backend_for,
    chat_model,
    embedding_model,
    saying,
    vllm_model,
)
from tests.fixtures.machines import free_ports
from tests.fixtures.triton import RunningTriton


async def test_models_are_known_by_their_tensors(triton_server: RunningTriton) -> None:
    chat, embedding = chat_model(triton_server), embedding_model(triton_server)
    numbers = chat_model(triton_server, text="TYPE_FP32")
    for name in (chat, embedding, numbers):
        triton_server.load(name)
    async with backend_for(triton_server) as backend:
        cards = {card.name: card.kind for card in backend.models}
        assert cards[chat] == "chat"
        assert cards[embedding] == "embedding"
        assert numbers not in cards
        assert {chat, embedding} <= backend.loaded
        assert backend.hardware.provider.startswith("triton 2.")
    with pytest.raises(BackendFailed, match="text_input has type FP32, expected BYTES"):
        async with backend_for(triton_server, numbers):
            pass
    for name in (chat, embedding, numbers):
        triton_server.unload(name)


async def test_texts_are_embedded_in_batches_of_what_the_model_takes(triton_server: RunningTriton) -> None:
    name = embedding_model(triton_server)
    async with backend_for(triton_server, name) as backend:
        found = await vectors(backend, name, ["x" * length for length in range(1, 11)])
        assert found[:, 0].tolist() == list(range(1, 11))
        assert found[:, 1].max() == 4
        with pytest.raises(BackendFailed, match="is out of memory"):
            await vectors(backend, name, ["fail"])
        with pytest.raises(BackendFailed, match="have changed"):
            await _of_another_shape(backend, name)
    triton_server.unload(name)


async def _of_another_shape(backend: TritonBackend, name: str) -> None:
    """As where somebody changed the model, and this node read its tensors before."""
    object.__setattr__(backend._loaded[name].model, "batch", 64)
    await vectors(backend, name, ["x"] * 33)


async def test_a_model_of_vllm_is_asked_in_its_own_words(triton_server: RunningTriton) -> None:
    name = vllm_model(triton_server)
    async with backend_for(triton_server, name) as backend:
        text, finish = await answered(backend, saying(name, "hello"))
        assert text == "user: hello\nassistant:"
        assert (finish.reason, finish.usage.prompt_tokens, finish.usage.completion_tokens) == ("length", 7, 2)
    triton_server.unload(name)


async def test_a_model_that_is_not_there_is_named_with_those_that_are(triton_server: RunningTriton) -> None:
    name = chat_model(triton_server)
    with pytest.raises(UnknownModel, match=rf"'nowhere' in the repository .*{name}"):
        async with backend_for(triton_server, "nowhere"):
            pass


async def test_a_model_that_fails_to_load_is_told_in_its_own_words(triton_server: RunningTriton) -> None:
    name = chat_model(triton_server)
    code = triton_server.repository / name / "1" / "model.py"
    code.write_text("raise ValueError('the weights are gone')\n")
    with pytest.raises(BackendFailed, match=rf"{name}.*the weights are gone") as raised:
        async with backend_for(triton_server, name):
            pass
    assert len(str(raised.value)) < 500


async def test_nobody_at_the_address_is_said_so() -> None:
    (port,) = free_ports(1)
    backend = TritonBackend(TritonSettings(url=f"grpc://127.0.0.1:{port}", connect_timeout_s=2))
    with pytest.raises(Unavailable, match=f"no Triton server answers at 127.0.0.1:{port}"):
        await backend.start()


class OfAnotherAge(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Speaks the protocol, and is not the server that this backend was made for."""

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerMetadataResponse(name="triton", version="1.15.0")


@asynccontextmanager
async def serving(*servicers: Any) -> AsyncIterator[str]:
    server = grpc.aio.server()
    for each in servicers:
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(each, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_a_server_of_another_version_and_one_that_is_no_triton_are_refused() -> None:
    async with serving(OfAnotherAge()) as url:
        with pytest.raises(BackendFailed, match=r"triton 1.15.0; Orchestra needs 2.x"):
            await TritonBackend(TritonSettings(url=url)).start()
    async with serving() as url:
        with pytest.raises(BackendFailed, match="is not a Triton server that Orchestra supports"):
            await TritonBackend(TritonSettings(url=url)).start()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8001", "http://127.0.0.1:8001", "grpc://127.0.0.1", "grpc://h:1/x"]
)
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="grpc://HOST:PORT"):
        TritonSettings(url=url)
