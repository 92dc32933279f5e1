from __future__ import annotations

import itertools

import pytest

from orchestration.forecast import Forecast, ForecastState, ModelCall
from tests.orchestration.rhythm import DAY_S, HOUR_S, WEEK_S, WarmedNode, trace


@pytest.mark.simulation
def test_a_quarter_of_the_cold_starts_are_left_on_a_trace_with_a_daily_rhythm() -> None:
    asked = list(trace(3))
    without = WarmedNode(None).run(iter(asked), 2 * WEEK_S)
    with_it = WarmedNode(Forecast()).run(iter(asked), 2 * WEEK_S)
    assert without["cold"] > 20
    assert with_it["warmed"] > 0
    assert with_it["cold"] <= without["cold"] / 4
    assert sum(with_it.values()) == sum(without.values())


def test_what_comes_every_morning_is_expected_before_it_comes() -> None:
    forecast = Forecast()
    for day in range(3):
        for minute in range(60):
            forecast.add_arrivals("m", day * DAY_S + 9 * HOUR_S + 60 * minute)
    assert forecast.expected(3 * DAY_S + 5 * HOUR_S, 600)["m"] < 0.01
    assert forecast.expected(3 * DAY_S + 9 * HOUR_S - 300, 600)["m"] > 1


def test_after_some_weeks_a_day_off_is_known_as_one() -> None:
    forecast = Forecast()
    for day in range(28):
        if day % 7 < 5:
            for minute in range(0, 60, 2):
                forecast.add_arrivals("m", day * DAY_S + 9 * HOUR_S + 60 * minute)
    assert forecast.expected(28 * DAY_S + 9 * HOUR_S, 3600)["m"] == pytest.approx(15, rel=0.3)
    assert forecast.expected(33 * DAY_S + 9 * HOUR_S, 3600)["m"] < 0.01


def test_arrivals_fade_with_the_half_life() -> None:
    forecast = Forecast(half_life_s=600)
    for second in range(0, 1800, 10):
        forecast.add_arrivals("m", 100 + second)
    now = forecast.expected(1900, 600)["m"]
    assert now == pytest.approx(60, rel=0.3)
    assert forecast.expected(2500, 600)["m"] == pytest.approx(now / 2, rel=0.1)


def test_the_model_that_a_pattern_calls_next_is_expected_while_its_run_goes_on() -> None:
    forecast = Forecast(run_s=60)
    for run, now in zip(range(20), itertools.count(0, 100), strict=False):
        forecast.add_call(ModelCall(run=str(run), pattern="maestro", model="planner"), now)
        next_ = "writer" if run % 4 else "coder"
        forecast.add_call(ModelCall(run=str(run), pattern="maestro", model=next_), now + 5)
    forecast.add_call(ModelCall(run="x", pattern="maestro", model="planner"), 5000)
    expected = forecast.expected(5001, 60)
    assert expected["writer"] == pytest.approx(0.75, abs=0.1)
    assert expected["coder"] == pytest.approx(0.25, abs=0.1)
    forecast.add_call(ModelCall(run="y", pattern="debate", model="planner"), 5000)
    assert forecast.expected(5001, 60) == expected, "of this pattern nothing is known"
    assert not any(forecast.expected(5061, 60).values()), "nothing came: the run is over"


def test_a_restart_forgets_nothing_but_the_runs_under_way() -> None:
    forecast = Forecast()
    for day in range(8):
        forecast.add_arrivals("m", day * DAY_S + HOUR_S, 7)
        for model in ("a", "b"):
            forecast.add_call(ModelCall(run=str(day), pattern="p", model=model), day * DAY_S)
    now = 8 * DAY_S + HOUR_S / 2
    state = ForecastState.model_validate_json(forecast.state(now).model_dump_json())
    restored = Forecast.restored(state)
    assert restored.expected(now, 3600) == forecast.expected(now, 3600)
    for each in (forecast, restored):
        each.add_call(ModelCall(run="new", pattern="p", model="a"), now)
    assert restored.expected(now, 3600) == forecast.expected(now, 3600)
    assert restored.expected(now, 3600)["b"] > 0.5
