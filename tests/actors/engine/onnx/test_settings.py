from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from actors.engine.settings import OnnxSettings


def test_threads_are_chosen_when_none_are_said() -> None:
    assert OnnxSettings().threads in (1, 2)
    assert OnnxSettings(threads=3).threads == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"slots": 0},
        {"max_waiting": -1},
        {"prefill_chunk": 1},
        {"prefix_block": 1},
        {"kv_cache_bytes": 0},
        {"default_temperature": 2.5},
        {"default_top_p": 0.0},
        {"providers": ()},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        OnnxSettings(**wrong)
    assert [error["loc"] for error in caught.value.errors()] == [(next(iter(wrong)),)]
