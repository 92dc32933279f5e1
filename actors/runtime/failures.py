"""Turns an unexpected exception into the error of the one message or run that it occurred in."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from actors.telemetry.event_log import RECORDED, event_log
from actors.telemetry.redaction import without_secrets
from actors.telemetry.telemetry import INTERNAL_ERRORS
from orchestration.errors import InternalError, OrchestraError
from orchestration.log_events import LogLevel

log = logging.getLogger(__name__)

FRAMES = 12
"""Innermost places of an exception that its event names."""
UNEXPECTED_ERRORS = (Exception, BaseExceptionGroup, SystemExit, KeyboardInterrupt)
"""What code may raise by mistake. `SystemExit` and `KeyboardInterrupt` of a plug-in would end the whole event
loop; Ctrl-C reaches a process as a signal that its loop handles."""


def internal_error(what: str, error: BaseException, where: str) -> OrchestraError:
    """The error to report when `what` raised `error`, which is logged with its traceback.

    It is counted under the label `where`, which must have few values. In a group of exceptions the first that
    is not an `OrchestraError` counts; a group of only those is reported as its first one, and not logged.
    """
    cause = _cause(error)
    if isinstance(cause, OrchestraError):
        return cause
    INTERNAL_ERRORS.labels(where).inc()
    log.error("%s failed", what, exc_info=error, extra=RECORDED)
    _record(what, cause, where)
    return InternalError(f"{what} failed: {describe_error(cause)}")


def _record(what: str, error: BaseException, where: str) -> None:
    """Record an unexpected exception with the places it came from. Its text is left out unless events may
    have content: it may quote a prompt."""
    if not event_log.enabled:
        return
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    data = {
        "exception": type(error).__name__,
        "where": where,
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if event_log.content:
        data["text"] = without_secrets(describe_error(error))[:2_000]
    event_log.record(
        "error.unexpected",
        level=LogLevel.ERROR,
        message=f"{what} failed: {type(error).__name__}",
        data=data,
    )


def describe_error(error: BaseException) -> str:
    """The type and the text of an exception; the type alone when it has no text."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the exception is foreign code too
        text = ""
    return f"{name}: {text}" if text else name


def task_is_cancelled() -> bool:
    """Whether the running task was cancelled. Only for a `CancelledError` in hand: a task group that failed
    leaves the count raised before Python 3.13."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def wrap_unexpected_errors(what: str, where: str) -> Iterator[None]:
    """Raise every unexpected exception of the block as `internal_error`, whatever its base class: the panics
    of libraries written in Rust are not derived from `Exception`. A cancellation of the task stays one, and
    so does the end of a generator that its reader closes; another `CancelledError` is an unexpected
    exception."""
    try:
        yield
    except (OrchestraError, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and task_is_cancelled():
            raise
        raise internal_error(what, error, where) from error


def _cause(error: BaseException) -> BaseException:
    leaves = list(_leaves(error))
    return next((leaf for leaf in leaves if not isinstance(leaf, OrchestraError)), leaves[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
