"""How long a node may take to its first output, and when it is taken for hung. Pure."""

from __future__ import annotations

from orchestration.messages import ModelRates
from orchestration.placement import Call, Chooser, FirstOutputs, FirstOutputSettings, Needs
from tests.orchestration.placement.nodes import node

SETTINGS = FirstOutputSettings(factor=10, min_s=5, max_s=60, unknown_s=20)
NEEDS = Needs(model="m", prompt_tokens=100)


def rates(first_s: float, prompt_token_s: float = 0.0, samples: int = 1) -> ModelRates:
    return ModelRates(samples=samples, first_s=first_s, prompt_token_s=prompt_token_s)


def test_the_limit_is_learnt_from_the_models_record_within_a_floor_and_a_cap() -> None:
    assert SETTINGS.limit_s([], 100) == 20
    assert SETTINGS.limit_s([rates(0, samples=0)], 100) == 20
    assert SETTINGS.limit_s([rates(0.1)], 100) == 5
    assert SETTINGS.limit_s([rates(0.1), rates(1, 0.01)], 100) == 20
    assert SETTINGS.limit_s([rates(20)], 100) == 60
    assert SETTINGS.limit_s([rates(1, 0.5)], 1000) == 1002  # a long prompt is no hung node


def test_a_node_without_a_sign_of_life_within_the_limit_is_hung() -> None:
    outputs = FirstOutputs(SETTINGS)
    records = {"well": rates(0.1)}
    calls = [outputs.sent(f"{number}", "hung", NEEDS, 100.0) for number in range(3)]
    well = outputs.sent("w", "well", NEEDS, 100.0)
    assert outputs.overdue(lambda _: records, 104.0) == []
    overdue = outputs.overdue(lambda _: records, 106.0)
    assert set(overdue) == {*calls, well}
    well.has_output = True
    assert set(outputs.hung(overdue, 106.0)) == set(calls)
    for call in (*calls, well):
        outputs.ended(call)
    assert len(outputs) == 0


def test_a_node_that_answers_others_meanwhile_is_busy() -> None:
    outputs = FirstOutputs(SETTINGS)
    late, begun = (outputs.sent(name, "n", NEEDS, 100.0) for name in ("late", "begun"))
    begun.has_output = True
    assert _hung(outputs, 106.0, samples=1) == []
    outputs.ended(begun)  # and with it the number of those it answered rises
    assert _hung(outputs, 107.0, samples=2) == []
    assert _hung(outputs, 111.0, samples=2) == []
    assert _hung(outputs, 113.0, samples=2) == [late]


def test_a_sign_of_life_without_an_output_counts_for_the_limit_once_more() -> None:
    outputs = FirstOutputs(SETTINGS)
    call = outputs.sent("pings", "n", NEEDS, 100.0)
    (overdue,) = outputs.overdue(lambda _: {"n": rates(0.1)}, 106.0)
    assert overdue is call
    call.alive_at = 106.0
    assert outputs.hung([call], 106.0) == []
    assert _hung(outputs, 110.0, samples=1) == []
    assert _hung(outputs, 112.0, samples=1) == [call]


def _hung(outputs: FirstOutputs, now: float, *, samples: int) -> list[Call]:
    return outputs.hung(outputs.overdue(lambda _: {"n": rates(0.1, samples=samples)}, now), now)


def test_a_prompt_far_longer_than_all_before_has_its_time() -> None:
    chooser = Chooser()
    chooser.index.put(node("n", samples=50), 0.0)
    assert SETTINGS.limit_s(chooser.records("m").values(), 10) == 5
    assert SETTINGS.limit_s(chooser.records("m").values(), 4000) > 20
