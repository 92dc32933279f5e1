"""What travels with a message: caller, deadline, trace."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from hashlib import blake2b

from orchestration.errors import DeadlineExceeded

DEADLINE = "Orchestra-Deadline"
"""Unix time in seconds after which no one waits for the answer; work on it ends then."""
CALLER = "Orchestra-Caller"
"""Name of the caller, for limits and logs."""
OPERATOR = "Orchestra-Operator"
"""Name of the operator that cancels a job without being its caller, for the audit."""
REASON = "Orchestra-Reason"
"""Why the operator cancels the job, for the audit."""
TRACE = "traceparent"
ATTEMPT = "Orchestra-Attempt"
"""Number of times that a queue delivered the message, from 1."""
PATTERN = "Orchestra-Pattern"
"""Pattern of the run to which a generation belongs."""
RUN = "Orchestra-Run"
"""Id of the run or job to which a generation belongs."""

DEFAULT_DEADLINE_S = 600.0
"""How long a request without a deadline of its own may take."""
_MAX_DEADLINE = 1e11
"""The year 5138: a later deadline is a mistake, and timers overflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What travels with a message, in its headers."""

    deadline: float = 0.0
    """Unix time in seconds; 0: none."""
    trace: str = ""
    """W3C traceparent; '': none."""
    caller: str = ""
    """Name of the caller, for limits and logs."""
    attempt: int = 1
    """Number of times that a queue delivered the message, from 1."""
    pattern: str = ""
    """Pattern of the run that this is a step of; '': none."""
    run: str = ""
    """Id of the run or job that this is a step of; '': none."""

    @classmethod
    def within(cls, seconds: float, *, trace: str = "", caller: str = "") -> Envelope:
        """An envelope whose deadline is `seconds` from now."""
        return cls(deadline=time.time() + seconds, trace=trace, caller=caller)

    @classmethod
    def from_headers(cls, headers: Mapping[str, str] | None) -> Envelope:
        """Read an envelope from headers; a deadline that is not a number counts as none."""
        if not headers:
            return EMPTY_ENVELOPE
        try:
            deadline = float(headers.get(DEADLINE, 0))
        except ValueError:
            deadline = 0.0
        if not 0 < deadline < _MAX_DEADLINE:  # NaN too
            deadline = 0.0
        attempt = headers.get(ATTEMPT, "1")
        return cls(
            deadline=deadline,
            trace=headers.get(TRACE, ""),
            caller=headers.get(CALLER, ""),
            attempt=int(attempt) if attempt.isdecimal() and len(attempt) < 9 else 1,
            pattern=headers.get(PATTERN, ""),
            run=headers.get(RUN, ""),
        )

    def headers(self) -> dict[str, str]:
        """The headers for this envelope; `from_headers` reads them."""
        headers: dict[str, str] = {}
        if self.deadline:
            headers[DEADLINE] = f"{self.deadline:.3f}"
        if self.trace:
            headers[TRACE] = self.trace
        if self.caller:
            headers[CALLER] = self.caller
        if self.attempt != 1:
            headers[ATTEMPT] = str(self.attempt)
        if self.pattern:
            headers[PATTERN] = self.pattern
        if self.run:
            headers[RUN] = self.run
        return headers

    def remaining(self, default: float) -> float:
        """Seconds until the deadline, `default` without one. Raises `DeadlineExceeded` when past."""
        if not self.deadline:
            return default
        left = self.deadline - time.time()
        if left <= 0:
            raise DeadlineExceeded(f"the deadline passed {-left:.1f} s ago")
        return left

    def with_timeout(self, seconds: float | None) -> Envelope:
        """A copy whose deadline is at most `seconds` from now; None changes nothing."""
        if seconds is None:
            return self
        deadline = time.time() + seconds
        return replace(self, deadline=min(deadline, self.deadline or deadline))

    def with_trace(self, trace: str) -> Envelope:
        """A copy with another trace."""
        if trace == self.trace:
            return self
        return Envelope(  # `replace` costs twice as much, and every span makes a copy
            deadline=self.deadline,
            trace=trace,
            caller=self.caller,
            attempt=self.attempt,
            pattern=self.pattern,
            run=self.run,
        )


EMPTY_ENVELOPE = Envelope()

current_envelope: ContextVar[Envelope] = ContextVar("orchestra_envelope", default=EMPTY_ENVELOPE)
"""The envelope of the message that the running handler works on."""


def trace_of(run: str) -> str:
    """The W3C traceparent of a run that nobody traces. It is made of the run's id, so that all processes give
    the run's events the same one."""
    digest = blake2b(run.encode(), digest_size=24).hexdigest()
    return f"00-{digest[:32]}-{digest[32:]}-00"
