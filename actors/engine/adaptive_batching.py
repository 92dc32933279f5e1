"""How much one step of an engine takes on: set once, or moved with the load."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from actors.engine.settings import EngineSettings
from orchestration.batching import AdaptiveBatching, Batching, BatchingSettings

log = logging.getLogger(__name__)

MAX_WINDOW_S = 0.02
"""The longest wait of a step for company."""


class StepSize:
    """Tokens of one step: `usual`, or one of `sizes` where the settings let it move. Used by the engine's
    thread alone; others may read it."""

    def __init__(
        self,
        model: str,
        usual: int,
        sizes: Sequence[int],
        settings: EngineSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self._clock = clock
        self._kept = Batching(window_s=0.0, sizes=(usual,))
        self._policy: AdaptiveBatching | None = None
        if settings.step_target_s:
            target = BatchingSettings(
                target_s=settings.step_target_s, sizes=tuple(sorted(set(sizes))), max_window_s=MAX_WINDOW_S
            )
            self._policy = AdaptiveBatching(target, clock())
            self._kept = self._policy.current

    @property
    def tokens(self) -> int:
        """At most so many."""
        return self._kept.size

    @property
    def window_s(self) -> float:
        """How long a step waits for company, once it has something to do."""
        return self._kept.window_s

    def done(self, tokens: int, *, since: float, began: float) -> None:
        """A step that began at `began` took on `tokens`, the longest waiting of which had come at `since`,
        both by `time.monotonic`; it ended now."""
        if self._policy is None:
            return
        now = self._clock()
        self._policy.observe(now, size=tokens, waited_s=max(0.0, began - since), took_s=now - began)
        decided = self._policy.decide(now)
        if decided is not self._kept:
            self._kept = decided
            log.debug(
                "a step of model %s takes on %d tokens, after %.0f ms",
                self.model,
                decided.size,
                1000 * decided.window_s,
            )
