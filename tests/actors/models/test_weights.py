"""Tensor formats: every value that the gguf package reads is read the same, bit for bit where promised."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import quants
from gguf.constants import GGMLQuantizationType as Type

from actors.models.weights import BlockWeights, layout, matrix
from tests.actors.models.tiny_gguf import raw_rows

EXACT = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K]


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.name)
def test_a_block_format_keeps_its_values_to_float_rounding(kind: Type) -> None:
    raw = raw_rows(kind, (48, 512), 0.08, np.random.default_rng(1)).view(np.uint8)
    weights = matrix(kind, raw)
    assert isinstance(weights, BlockWeights)
    expected = quants.dequantize(raw, kind)
    assert expected.std() > 0.01
    # d * q + m and d * (q - 8) + (m + 8 d) are the same numbers, rounded in another order.
    np.testing.assert_allclose(weights.values(), expected, rtol=0, atol=4e-7 * np.abs(expected).max())
    assert layout(kind) == kind.name.lower()


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q5_0, Type.Q8_0, Type.Q6_K], ids=lambda kind: kind.name)
def test_a_symmetric_format_is_kept_bit_for_bit(kind: Type) -> None:
    raw = raw_rows(kind, (48, 512), 0.08, np.random.default_rng(2)).view(np.uint8)
    weights = matrix(kind, raw)
    assert isinstance(weights, BlockWeights)
    assert weights.offsets is None
    np.testing.assert_array_equal(weights.values(), quants.dequantize(raw, kind))


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16], ids=lambda kind: kind.name)
def test_floats_are_kept_in_float32(kind: Type) -> None:
    values = raw_rows(kind, (8, 64), 1.0, np.random.default_rng(3))
    kept = matrix(kind, values.view(np.uint8))
    assert not isinstance(kept, BlockWeights)
    np.testing.assert_array_equal(kept, quants.dequantize(values, kind))
    assert layout(kind) == "f32"


@pytest.mark.parametrize("kind", [Type.Q3_K, Type.IQ4_NL], ids=lambda kind: kind.name)
def test_a_format_without_an_exact_form_goes_to_eight_bits_and_says_so(kind: Type) -> None:
    raw = raw_rows(kind, (16, 512), 0.08, np.random.default_rng(4)).view(np.uint8)
    weights = matrix(kind, raw)
    assert isinstance(weights, BlockWeights)
    assert weights.bits == 8
    expected = quants.dequantize(raw, kind)
    assert np.abs(weights.values() - expected).max() <= np.abs(expected).max() / 254 * 1.01
    assert layout(kind) == f"q8 (from {kind.name.lower()})"


def test_four_bit_codes_widened_to_eight_have_the_same_values() -> None:
    raw = raw_rows(Type.Q4_1, (8, 128), 0.08, np.random.default_rng(5))
    weights = matrix(Type.Q4_1, raw)
    assert isinstance(weights, BlockWeights)
    wide = weights.widened()
    assert (weights.bits, wide.bits) == (4, 8)
    low, high = weights.codes & 15, weights.codes >> 4
    np.testing.assert_array_equal(wide.codes[..., 0::2].astype(int) - 128, low.astype(int) - 8)
    np.testing.assert_array_equal(wide.codes[..., 1::2].astype(int) - 128, high.astype(int) - 8)
