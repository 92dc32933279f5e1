"""What becomes of a job whose attempt failed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import (
    BackendFailed,
    Cancelled,
    ContextTooLong,
    DeadlineExceeded,
    InternalError,
    NodeLost,
    NoNode,
    OrchestraError,
    QueueFull,
    UnknownModel,
)
from orchestration.retries import RetryDecision, RetryPolicy

POLICY = RetryPolicy(max_attempts=3, first_pause_s=1, max_pause_s=10, outage_pause_s=5, max_age_s=100)


@pytest.mark.parametrize("kind", [NodeLost, BackendFailed, DeadlineExceeded])
def test_failures_that_the_job_may_cause_are_retried_until_its_attempts_are_used_up(
    kind: type[OrchestraError],
) -> None:
    assert POLICY.decide(kind("x"), attempts=1, age_s=0) == (RetryDecision.RETRY, 1)
    assert POLICY.decide(kind("x"), attempts=2, age_s=0) == (RetryDecision.RETRY, 2)
    assert POLICY.decide(kind("x"), attempts=3, age_s=0) == (RetryDecision.DEAD_LETTER, 0)


@pytest.mark.parametrize("kind", [NoNode, QueueFull, UnknownModel])
def test_an_outage_uses_no_attempt_up_but_ends_a_jobs_patience(kind: type[OrchestraError]) -> None:
    assert POLICY.decide(kind("x"), attempts=3, age_s=99) == (RetryDecision.WAIT, 5)
    assert POLICY.decide(kind("x", retry_after_s=7), attempts=1, age_s=0) == (RetryDecision.WAIT, 7)
    assert POLICY.decide(kind("x"), attempts=1, age_s=100) == (RetryDecision.DEAD_LETTER, 0)


@pytest.mark.parametrize("kind", [ContextTooLong, Cancelled, InternalError])
def test_an_error_that_would_come_again_ends_the_job_at_once(kind: type[OrchestraError]) -> None:
    assert POLICY.decide(kind("x"), attempts=1, age_s=0) == (RetryDecision.FAIL, 0)


@given(st.integers(min_value=1, max_value=10_000))
def test_pauses_grow_up_to_the_longest(attempts: int) -> None:
    pause = POLICY.pause_s(attempts)
    assert 1 <= pause <= 10
    assert pause <= POLICY.pause_s(attempts + 1)
