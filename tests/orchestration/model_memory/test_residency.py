from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import InvalidRequest
from orchestration.model_memory import Residency

SIZES = {"a": 4, "b": 4, "c": 2, "d": 1, "unknown": 0}


def test_the_one_used_longest_ago_leaves_first_and_none_that_is_to_stay() -> None:
    memory = Residency(8, SIZES)
    for model in ("c", "a", "d"):
        memory.use(model)
    memory.use("c")
    assert memory.victims("b") == ["a"]
    assert memory.victims("b", keep={"a"}) == ["d", "c"]
    assert memory.victims("b", keep={"a", "c"}) is None
    assert memory.victims("unknown") == []
    memory.remove("a")
    assert memory.victims("b") == []


def test_without_a_limit_all_models_fit_and_none_is_evicted() -> None:
    memory = Residency(0, SIZES)
    assert memory.fitting() == list(SIZES)
    for model in SIZES:
        assert memory.victims(model) == []
        memory.use(model)
    assert not memory.contended


def test_a_model_that_does_not_fit_beside_earlier_ones_is_skipped() -> None:
    assert Residency(7, SIZES).fitting() == ["a", "c", "d", "unknown"]
    assert Residency(7, SIZES).contended
    assert not Residency(11, SIZES).contended


def test_a_model_larger_than_all_of_the_memory_is_named_with_both_sizes() -> None:
    with pytest.raises(InvalidRequest, match=r"'big' takes 3 MB, more than .* of 2 MB \(memory_mb\)"):
        Residency(2_000_000, {"big": 3_000_000})


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), min_size=1),
    st.integers(9, 20),
    st.data(),
)
def test_victims_make_enough_room_and_no_more_than_enough(
    sizes: dict[str, int], limit: int, data: st.DataObject
) -> None:
    memory = Residency(limit, sizes)
    for model in data.draw(st.lists(st.sampled_from(sorted(sizes)), max_size=30)):
        if model not in memory:
            leaving = memory.victims(model)
            assert leaving is not None
            for each in leaving:
                memory.remove(each)
            left_over = limit - memory.used_bytes - sizes[model]
            assert left_over >= 0
            assert not leaving or left_over < sizes[leaving[-1]]
        memory.use(model)
        assert memory.used_bytes <= limit
