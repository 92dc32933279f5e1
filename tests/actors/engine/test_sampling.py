from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from actors.engine.sampling import (
    Penalties,
    SamplingPlan,
    draw,
    greedy,
    log_probabilities,
    top_ids,
)
from actors.engine.settings import EngineSettings
from orchestration.messages import Sampling

VOCABULARY = 500


def logits(seed: int, scale: float = 3.0) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(0, scale, VOCABULARY)
    return values.astype(np.float32)


def allowed(values: NDArray[np.float32], plan: SamplingPlan) -> dict[int, float]:
    """Token to probability, by the plain definition of temperature, top-k and top-p."""
    order = sorted(range(len(values)), key=lambda at: (-values[at], at))
    weights = {
        at: float(np.exp((float(values[at]) - float(values.max())) / plan.temperature)) for at in order
    }
    kept = order[: plan.top_k] if plan.top_k else order
    total, mass, nucleus = sum(weights[at] for at in kept), 0.0, []
    for at in kept:
        nucleus.append(at)
        mass += weights[at]
        if mass >= plan.top_p * total:
            break
    return {at: weights[at] / mass for at in nucleus}


@pytest.mark.simulation
@pytest.mark.parametrize("temperature", [0.2, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.1, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 7])
def test_draws_follow_the_distribution_by_definition(temperature: float, top_p: float, top_k: int) -> None:
    plan = SamplingPlan(temperature=temperature, top_p=top_p, top_k=top_k)
    values = logits(1)
    wanted = allowed(values, plan)
    generator = np.random.default_rng(2)
    counts = np.bincount([draw(values, plan, generator) for _ in range(3000)], minlength=VOCABULARY)
    borderline = 1e-4  # a token at the very edge of top-p may fall on either side by rounding
    for token in np.flatnonzero(counts).tolist():
        assert token in wanted or counts[token] < 3000 * borderline
    for token, probability in wanted.items():
        deviation = 5 * np.sqrt(probability * (1 - probability) / 3000) + 0.001
        assert abs(counts[token] / 3000 - probability) < deviation


def test_a_seed_gives_the_same_draws_again() -> None:
    plan = SamplingPlan(temperature=1.0, top_p=0.95)
    runs = []
    for _ in range(2):
        generator = np.random.default_rng(7)
        runs.append([draw(logits(seed), plan, generator) for seed in range(20)])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("top_p", [0.95, 1.0])
def test_a_seed_draws_the_same_where_logits_differ_by_rounding(top_p: float) -> None:
    # On a cumulated sum 20 and 12 of 500 draws were other ones.
    plan = SamplingPlan(temperature=1.2, top_p=top_p)
    noise = np.random.default_rng(1).normal(0, 3e-4, (500, 8000)).astype(np.float32)
    values = np.random.default_rng(2).normal(0, 3, (500, 8000)).astype(np.float32)
    same = [
        draw(one, plan, np.random.default_rng(seed))
        == draw(one + rounding, plan, np.random.default_rng(seed))
        for seed, (one, rounding) in enumerate(zip(values, noise, strict=True))
    ]
    assert same.count(False) <= 3


@given(seed=st.integers(0, 1000), top_k=st.sampled_from([0, 3, 50]), top_p=st.sampled_from([0.5, 0.9, 1.0]))
def test_every_draw_takes_one_number_so_that_settings_do_not_shift_the_others(
    seed: int, top_k: int, top_p: float
) -> None:
    generator, other = np.random.default_rng(seed), np.random.default_rng(seed)
    draw(logits(seed), SamplingPlan(temperature=0.8, top_p=top_p, top_k=top_k), generator)
    other.random()
    assert generator.random() == other.random()


def test_masked_tokens_are_never_drawn() -> None:
    values = logits(3)
    values[np.arange(VOCABULARY) != 42] = -np.inf
    generator = np.random.default_rng(0)
    for top_k, top_p in [(0, 1.0), (5, 1.0), (0, 0.5), (5, 0.5)]:
        plan = SamplingPlan(temperature=2.0, top_p=top_p, top_k=top_k)
        assert draw(values, plan, generator) == 42


def test_greedy_takes_the_likeliest_of_each_row() -> None:
    batch = np.stack([logits(4), logits(5)])
    assert greedy(batch).tolist() == [int(np.argmax(row)) for row in batch]


def test_log_probabilities_sum_to_one() -> None:
    table = log_probabilities(logits(6))
    assert np.exp(table.astype(np.float64)).sum() == pytest.approx(1.0, abs=1e-5)


@given(values=st.lists(st.integers(0, 5), min_size=1, max_size=30), count=st.integers(0, 40))
def test_top_ids_are_sorted_and_equals_go_by_id(values: list[int], count: int) -> None:
    found = top_ids(np.array(values, np.float32), count).tolist()
    assert found == sorted(range(len(values)), key=lambda at: (-values[at], at))[:count]


def test_repetition_lowers_tokens_of_prompt_and_answer_on_both_sides_of_zero() -> None:
    plan = SamplingPlan(temperature=0.0, repetition_penalty=2.0)
    penalties = Penalties(plan, np.array([3, 1, 3]))
    penalties.add(2)
    values = np.array([4, 4, -4, 4, 4], np.float32)
    penalties.apply(values)
    assert values.tolist() == [4, 2, -8, 2, 4]


def test_frequency_counts_and_presence_does_not_and_the_prompt_is_free() -> None:
    plan = SamplingPlan(temperature=0.0, frequency_penalty=0.5, presence_penalty=0.25)
    penalties = Penalties(plan, np.array([0]))
    for token in (1, 1, 1, 2):
        penalties.add(token)
    values = np.zeros(4, np.float32)
    penalties.apply(values)
    assert values.tolist() == [0, -1.75, -0.75, 0]


def test_what_was_not_said_takes_the_defaults_and_a_said_temperature_stands_alone() -> None:
    settings = EngineSettings(default_temperature=0.3, default_top_p=0.8)
    silent = SamplingPlan.of(Sampling(), settings)
    assert (silent.temperature, silent.top_p, silent.logprobs) == (0.3, 0.8, None)
    said = SamplingPlan.of(Sampling(temperature=1.0), settings)
    assert (said.temperature, said.top_p) == (1.0, 1.0)
    assert SamplingPlan.of(Sampling(logprobs=True), settings).logprobs == 0
    assert SamplingPlan.of(Sampling(temperature=0), settings).greedy
