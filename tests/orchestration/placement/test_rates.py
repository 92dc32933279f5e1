from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.messages import Hardware, ModelCard, ModelRates
from orchestration.placement import LinearFit
from orchestration.placement.rates import blended_rates, default_rates

SMOL = ModelCard(name="smollm2-135m", parameters=134_515_008, memory_bytes=114_000_000)
TWO_CORES = Hardware(cores=2, memory_bytes=8 * 2**30, provider="cpu")
GPU = Hardware(cores=16, memory_bytes=2**37, provider="cuda", accelerators=("H100",))


@given(st.floats(0, 10), st.floats(0, 1), st.lists(st.floats(0, 1000), min_size=2, max_size=80, unique=True))
def test_a_line_is_found_again(base: float, slope: float, xs: list[float]) -> None:
    line = LinearFit()
    for x in xs:
        line.add(x, base + slope * x)
    found_base, found_slope = line.fitted()
    assert found_base >= 0
    assert found_slope >= 0
    middle = line.x / line.weight
    assert found_base + found_slope * middle == pytest.approx(base + slope * middle, rel=1e-3, abs=1e-3)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)), max_size=100))
def test_no_measurements_make_a_negative_line(points: list[tuple[float, float]]) -> None:
    line = LinearFit()
    for x, y in points:
        line.add(x, y)
    base, slope = line.fitted()
    assert base >= 0
    assert slope >= 0


def test_a_line_follows_a_change() -> None:
    line = LinearFit()
    for _ in range(200):
        line.add(1.0, 0.01)
    for _ in range(200):
        line.add(1.0, 0.05)
    assert line.fitted()[0] == pytest.approx(0.05, rel=0.05)


def test_the_guess_for_a_known_model_is_near_what_was_measured() -> None:
    guess = default_rates(SMOL, TWO_CORES)
    assert 60 < 1 / guess.token_s < 260  # 117–130 were measured
    assert 200 < 1 / guess.prompt_token_s < 1_800  # 600 were measured


def test_an_accelerator_is_expected_to_be_faster_and_swapping_slower() -> None:
    large = ModelCard(name="large", parameters=8 * 10**9, memory_bytes=16 * 10**9)
    assert default_rates(large, GPU).token_s < default_rates(large, TWO_CORES).token_s / 10
    roomy = TWO_CORES.model_copy(update={"memory_bytes": 2**36})
    assert default_rates(large, TWO_CORES).token_s > 5 * default_rates(large, roomy).token_s


def test_measurements_take_over_from_the_guess_as_they_come() -> None:
    guess = default_rates(SMOL, TWO_CORES).token_s
    beliefs = [
        blended_rates(ModelRates(samples=samples, token_s=1.0), SMOL, TWO_CORES).token_s
        for samples in (0, 1, 4, 40, 4000)
    ]
    assert beliefs[0] == guess
    assert beliefs == sorted(beliefs)
    assert beliefs[-1] == pytest.approx(1.0, rel=0.01)
