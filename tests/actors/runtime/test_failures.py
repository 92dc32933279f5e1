"""What an unexpected exception becomes, and what is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.runtime.failures import wrap_unexpected_errors
from orchestration.errors import InternalError, InvalidRequest


class Panic(BaseException):
    """As libraries written in Rust raise it."""


@pytest.mark.parametrize("error", [ValueError("no"), Panic("no"), KeyboardInterrupt()])
def test_an_unexpected_exception_is_logged_and_becomes_an_internal_error(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    with pytest.raises(InternalError, match="the work failed"), wrap_unexpected_errors("the work", "test"):
        raise error
    assert "the work failed" in caplog.text


def test_a_generator_that_its_reader_closes_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    def numbers() -> Iterator[int]:
        with wrap_unexpected_errors("the work", "test"):
            yield from range(3)

    reading = numbers()
    assert next(reading) == 0
    reading.close()  # type: ignore[attr-defined]
    assert not caplog.records


def test_an_error_for_the_caller_stays_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidRequest, match="too long"), wrap_unexpected_errors("the work", "test"):
        raise InvalidRequest("too long")
    assert not caplog.records
