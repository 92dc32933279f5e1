from __future__ import annotations

from actors.engine.adaptive_batching import MAX_WINDOW_S, StepSize
from actors.engine.settings import EngineSettings

SIZES = (32, 64, 128, 256)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def steps(
    size: StepSize,
    clock: Clock,
    count: int,
    *,
    waited_s: float,
    fixed_s: float,
    each_s: float,
    most: int = 256,
) -> None:
    """Steps one after another, full or of `most` tokens, whose first had waited so long."""
    for _ in range(count):
        began = clock.now
        tokens = min(most, size.tokens)
        clock.now += fixed_s + each_s * tokens
        size.done(tokens, since=began - waited_s, began=began)


def test_a_step_reads_more_while_prompts_wait_and_less_when_they_no_longer_do() -> None:
    clock = Clock()
    size = StepSize("m", 64, SIZES, EngineSettings(step_target_s=0.25), clock)
    assert size.tokens == 32
    steps(size, clock, 100, waited_s=1.0, fixed_s=0.03, each_s=0.0005)
    assert size.tokens == 256
    for _ in range(10):
        clock.now += 1
        steps(size, clock, 1, waited_s=0.0, fixed_s=0.03, each_s=0.0005)
    assert size.tokens == 32


def test_a_step_of_a_slow_model_stays_within_what_is_aimed_at() -> None:
    clock = Clock()
    size = StepSize("m", 64, SIZES, EngineSettings(step_target_s=0.25), clock)
    steps(size, clock, 100, waited_s=5.0, fixed_s=0.05, each_s=0.003)
    assert size.tokens == 64


def test_company_is_waited_for_where_a_call_costs_much_whatever_is_in_it() -> None:
    clock = Clock()
    dear = StepSize("m", 64, SIZES, EngineSettings(step_target_s=0.25), clock)
    for most in (24, 50) * 250:
        steps(dear, clock, 1, waited_s=0.0, fixed_s=0.004, each_s=0.00002, most=most)
    assert 0 < dear.window_s <= MAX_WINDOW_S
    cheap = StepSize("m", 64, SIZES, EngineSettings(step_target_s=0.25), clock)
    steps(cheap, clock, 200, waited_s=0.14, fixed_s=0.0, each_s=0.001)
    assert cheap.window_s == 0


def test_with_no_target_a_step_stays_as_it_was_set() -> None:
    clock = Clock()
    size = StepSize("m", 64, SIZES, EngineSettings(step_target_s=0), clock)
    steps(size, clock, 100, waited_s=9.0, fixed_s=0.1, each_s=0.001)
    assert (size.tokens, size.window_s) == (64, 0.0)
