"""A server's refusal of work for one of its models."""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.errors import OrchestraError

MARGIN_S = 0.25
"""Minimum time to the deadline, in seconds, for a server to be tried again; with less it could not answer."""


@dataclass(frozen=True, slots=True)
class ServerLimit:
    """The server's `error`; it may be tried again at `until`."""

    error: OrchestraError
    until: float

    def refusal(self, now: float) -> OrchestraError:
        """The same error, with the remaining wait."""
        left_s = max(0.0, self.until - now)
        return type(self.error)(self.error.message, param=self.error.param, retry_after_s=left_s)
