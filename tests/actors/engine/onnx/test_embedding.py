from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.onnx_backend import OnnxBackend
from actors.engine.sessions.onnx_encoder import group_by_length
from orchestration.errors import ContextTooLong, InvalidRequest
from tests.actors.engine.onnx.asking import embed

CAT = "The cat sits on the mat."


async def test_like_texts_are_nearer_than_unlike_ones(backend: OnnxBackend) -> None:
    vectors, finish = await embed(
        backend, CAT, "A kitten is resting on a rug.", "Interest rates rose by half a point in March."
    )
    assert vectors.shape == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.5 > far + 0.2
    assert finish.usage.prompt_tokens > 20
    assert finish.reason == "stop"


async def test_a_text_embeds_alike_alone_and_in_company(backend: OnnxBackend) -> None:
    alone, _ = await embed(backend, CAT)
    company, _ = await embed(backend, "Short.", CAT, "A much longer text about trains and stations. " * 6)
    assert np.allclose(alone[0], company[1], atol=1e-5)


async def test_texts_of_many_callers_are_answered_each_to_its_own(backend: OnnxBackend) -> None:
    texts = [f"Fact number {number} is about {'trains' if number % 2 else 'bees'}." for number in range(12)]
    results = await asyncio.gather(*(embed(backend, text) for text in texts))
    whole, _ = await embed(backend, *texts)
    for at, (vectors, _) in enumerate(results):
        assert np.allclose(vectors[0], whole[at], atol=1e-5)


async def test_more_texts_than_a_batch_come_in_order(backend: OnnxBackend) -> None:
    texts = [f"{'long ' * (number % 7)}text {number}" for number in range(75)]
    vectors, _ = await embed(backend, *texts)
    assert len(vectors) == 75
    single, _ = await embed(backend, texts[66])
    assert np.allclose(vectors[66], single[0], atol=1e-5)


async def test_a_text_too_long_is_refused_with_both_numbers(backend: OnnxBackend) -> None:
    with pytest.raises(ContextTooLong, match=r"1002 tokens.*512") as caught:
        await embed(backend, "fine", "word " * 1000)
    assert caught.value.param == "input"


async def test_no_text_is_refused(backend: OnnxBackend) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await embed(backend)
    assert caught.value.param == "input"


@given(lengths=st.lists(st.integers(1, 512), max_size=40), most=st.sampled_from([1, 300, 1024, 10**6]))
def test_groups_hold_every_index_once_waste_little_and_stay_in_their_bound(
    lengths: list[int], most: int
) -> None:
    groups = group_by_length(lengths, most)
    assert sorted(at for group in groups for at in group) == list(range(len(lengths)))
    for group in groups:
        assert max(lengths[at] for at in group) <= 1.5 * min(lengths[at] for at in group)
        assert len(group) == 1 or len(group) * max(lengths[at] for at in group) <= most
