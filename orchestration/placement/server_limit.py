"""What a server said when it asked to be left alone with one of its models."""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.errors import OrchestraError

MARGIN_S = 0.25
"""A server that may be asked again so shortly before the deadline has no time left to answer."""


@dataclass(frozen=True, slots=True)
class ServerLimit:
    """`error` holds the server's words; it may be asked again from `until` on."""

    error: OrchestraError
    until: float

    def refusal(self, now: float) -> OrchestraError:
        """The same error, with the wait that is left now."""
        left_s = max(0.0, self.until - now)
        return type(self.error)(self.error.message, param=self.error.param, retry_after_s=left_s)
