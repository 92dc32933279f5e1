"""The ensemble tokenizer, encoder, pooling gives the vectors of the ONNX node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from actors.engine.sessions.onnx_encoder import OnnxEncoder
from actors.engine.settings import OnnxSettings
from actors.models.tokenizer import Tokenizer
from actors.triton.repository import write_repository
from actors.triton.repository_plan import ModelSpec
from tests.actors.engine.onnx.asking import EMBEDDER
from tests.fixtures.models import minilm_folder
from tests.fixtures.triton import RunningTriton

TEXTS = [
    ("The quick brown fox jumps over the lazy dog. " * repeats) + str(number)
    for number, repeats in enumerate([1, 9, 2, 1, 30, 4] * 4)
]


def text_input(*texts: str) -> list[InferInput]:
    made = InferInput("text", [len(texts), 1], "BYTES")
    made.set_data_from_numpy(np.array([[text.encode()] for text in texts], object))
    return [made]


@pytest.fixture(scope="module")
def expected() -> NDArray[np.float32]:
    tokenizer = Tokenizer.load(minilm_folder())
    encoder = OnnxEncoder(minilm_folder(), OnnxSettings())
    return encoder.embed([tokenizer.encode_sentence(text) for text in TEXTS])


@pytest.fixture(scope="module")
def served(triton_server: RunningTriton) -> RunningTriton:
    """The ensemble, loaded; one load for the tests of this file."""
    folder = minilm_folder()
    write_repository(triton_server.repository, folder.parent, [EMBEDDER], ModelSpec(), force=True)
    triton_server.load(EMBEDDER)
    return triton_server


@pytest.fixture
async def client(served: RunningTriton) -> AsyncIterator[InferenceServerClient]:
    async with InferenceServerClient(served.address) as made:
        yield made


async def test_a_batch_of_texts_gives_the_vectors_of_the_onnx_node(
    client: InferenceServerClient, expected: NDArray[np.float32]
) -> None:
    answer = await client.infer(EMBEDDER, text_input(*TEXTS))
    np.testing.assert_allclose(answer.as_numpy("embedding"), expected, atol=1e-5)
    assert answer.as_numpy("token_count")[0].tolist() == [13]


async def test_texts_of_different_lengths_sent_at_once_are_batched_and_none_changes(
    client: InferenceServerClient, expected: NDArray[np.float32]
) -> None:
    answers = await asyncio.gather(*(client.infer(EMBEDDER, text_input(text)) for text in TEXTS))
    vectors = np.concatenate([answer.as_numpy("embedding") for answer in answers])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    statistics = await client.get_inference_statistics(f"{EMBEDDER}-encoder", as_json=True)
    sizes = [int(each["batch_size"]) for each in statistics["model_stats"][0]["batch_stats"]]
    assert max(sizes) > 1


async def test_a_text_too_long_is_refused_with_both_numbers(client: InferenceServerClient) -> None:
    with pytest.raises(
        InferenceServerException, match=r"context_length_exceeded: .* 602 tokens.* of 512 tokens"
    ):
        await client.infer(EMBEDDER, text_input("word " * 600))
