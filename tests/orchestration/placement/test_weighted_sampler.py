from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from orchestration.placement.weighted_sampler import WeightedSampler

WEIGHTS = st.one_of(st.just(0.0), st.floats(1e-6, 1e9))


@given(st.lists(st.tuples(st.integers(0, 40), WEIGHTS), max_size=150), st.integers(0, 1000))
def test_only_places_with_a_weight_are_drawn_however_weights_change(
    changes: list[tuple[int, float]], seed: int
) -> None:
    tree, random = WeightedSampler(), Random(seed)
    plain: list[float] = []
    for place, weight in changes:
        while place >= len(plain):
            assert tree.grow() == len(plain)
            plain.append(0.0)
        tree.set(place, weight)
        plain[place] = weight
        drawn = tree.draw(random)
        assert tree.count == sum(each > 0 for each in plain)
        assert (drawn is None) == (not any(plain))
        assert drawn is None or plain[drawn] > 0


def test_each_is_drawn_as_often_as_its_weight_says() -> None:
    tree, random = WeightedSampler(), Random(1)
    weights = [1.0, 0.0, 5.0, 2.0, 0.0, 2.0, 10.0]
    for weight in weights:
        tree.set(tree.grow(), weight)
    drawn = Counter(tree.draw(random) for _ in range(20_000))
    for place, weight in enumerate(weights):
        assert abs(drawn[place] / 20_000 - weight / sum(weights)) < 0.02


def test_places_added_later_keep_the_other_weights() -> None:
    tree, random = WeightedSampler(), Random(1)
    for number in range(300):
        tree.set(tree.grow(), float(number % 7))
    drawn = Counter(tree.draw(random) for _ in range(20_000))
    assert all(place is not None and place % 7 for place in drawn)
    last = sum(count for place, count in drawn.items() if place is not None and place >= 150)
    assert abs(last / 20_000 - 0.5) < 0.03
