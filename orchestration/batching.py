"""How much is worked off at once, and how long the first waits for company: moved with the load.

A batch of `n` takes about `fixed_s + each_s * n` seconds. While little comes, a batch is small and nobody
waits for company; under pressure it grows to what bears the load, as long as it ends within the latency that
is aimed at (batch size by a measured linear cost and a latency objective: Clipper, Crankshaw et al., 2017).
To wait for company pays only where the batches that form by themselves, while the last one runs, are so small
that larger ones save a good part of the work; so that is reckoned from what was measured.

Pure: `now` is in seconds on a clock that never goes back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from orchestration.errors import InvalidRequest

HEADROOM = 1.25
"""A size is chosen to bear so many times the present rate."""
PRESSED_BUSY, CALM_BUSY = 0.75, 0.45
"""Shares of the time spent in batches above and below which a load counts as one or the other."""
WORTH_WAITING = 0.3
"""The share of the work that a wait for company must save: what is reckoned to be less was not to be seen."""
FARTHEST = 4
"""Times the largest batch seen that the next may be: the measured line is not trusted farther."""
REMEMBERED = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingSettings:
    """`target_s` is aimed at from arrival to end. Between two changes at least `hold_s` pass, and before one
    to less `calm_s` of calm: a change that costs a reload wants both long. `horizon_s` is looked back on."""

    target_s: float
    sizes: tuple[int, ...]
    max_window_s: float = 0.0
    horizon_s: float = 2.0
    hold_s: float = 0.5
    calm_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.sizes or sorted(set(self.sizes)) != list(self.sizes) or self.sizes[0] < 1:
            raise InvalidRequest(f"batch sizes {self.sizes} do not grow from 1 or more", param="sizes")
        if min(self.target_s, self.horizon_s) <= 0 or min(self.max_window_s, self.hold_s, self.calm_s) < 0:
            raise InvalidRequest("times of batching must not be negative, nor target_s and horizon_s 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """What is in force: at most `size` at once (`sizes` are those preferred, the largest last), the first of
    which waits `window_s` for company."""

    window_s: float
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.sizes[-1]


@dataclass(frozen=True, slots=True)
class _Seen:
    at: float
    size: float
    waited_s: float
    took_s: float
    batches: int


class AdaptiveBatching:
    """Of one model. Tell it of each batch, or of some in a row; ask `decide` as often as you like: it gives
    the same object until something is to change.

    Whoever has the model sets what is new there: an engine its own limits, Triton a whole configuration.
    """

    def __init__(self, settings: BatchingSettings, now: float, current: Batching | None = None) -> None:
        """`current` is in force to begin with, with the first few of the sizes; else the smallest alone."""
        self.settings = settings
        self.current = current or Batching(window_s=0.0, sizes=settings.sizes[:1])
        self._seen: deque[_Seen] = deque(maxlen=REMEMBERED)
        self._began = self._changed_at = self._calm_since = now
        self.fixed_s = 0.0
        self.each_s = 0.0
        """What a batch takes, and each more in it; kept from when sizes differed last."""

    def observe(self, now: float, *, size: float, waited_s: float, took_s: float, batches: int = 1) -> None:
        """`batches` of `size` on average took `took_s` each; of what was in them the longest, or the average
        where only that is known, had waited `waited_s` before."""
        self._seen.append(_Seen(now, size, waited_s, took_s, batches))

    def decide(self, now: float) -> Batching:
        """What should be in force from now on."""
        settings = self.settings
        while self._seen and self._seen[0].at < now - settings.horizon_s:
            self._seen.popleft()
        busy, waited, rate = self._load(now)
        calm = busy < CALM_BUSY and waited < settings.target_s / 4
        if not calm:
            self._calm_since = now
        if now - self._changed_at < settings.hold_s:
            return self.current
        pressed = busy > PRESSED_BUSY or waited > settings.target_s / 2
        if not pressed and now - self._calm_since < settings.calm_s:
            return self.current
        self._fit()
        wanted = self._wanted(rate, pressed, late=waited > settings.target_s)
        if self._differs(wanted):
            self.current, self._changed_at = wanted, now
        return self.current

    def _load(self, now: float) -> tuple[float, float, float]:
        """The share of the time in batches, how long the slowest tenth waited beyond what the window makes
        them wait, and how much came a second."""
        span = max(min(self.settings.horizon_s, now - self._began), 1e-3)
        if not self._seen:
            return 0.0, 0.0, 0.0
        waits = sorted(max(0.0, each.waited_s - self.current.window_s) for each in self._seen)
        busy = sum(each.took_s * each.batches for each in self._seen) / span
        rate = sum(each.size * each.batches for each in self._seen) / span
        return busy, waits[len(waits) * 9 // 10], rate

    def _fit(self) -> None:
        """Least squares over what was seen; one size alone says only what that takes, half of it fixed until
        another size tells better."""
        count = sum(each.batches for each in self._seen)
        if not count:
            return
        size = sum(each.size * each.batches for each in self._seen) / count
        took = sum(each.took_s * each.batches for each in self._seen) / count
        spread = sum(each.batches * (each.size - size) ** 2 for each in self._seen) / count
        if spread > 0.01 * size * size:
            common = sum(each.batches * (each.size - size) * (each.took_s - took) for each in self._seen)
            self.each_s = min(max(common / count / spread, 0.0), took / size)
            self.fixed_s = took - self.each_s * size
        else:
            known = self.fixed_s + self.each_s * size
            scale = took / known if known else 0.0
            self.fixed_s = self.fixed_s * scale if scale else took / 2
            self.each_s = self.each_s * scale if scale else took / 2 / size

    def _takes(self, size: float) -> float:
        return self.fixed_s + self.each_s * size

    def _wanted(self, rate: float, pressed: bool, *, late: bool) -> Batching:
        """Where all come too `late` there is a backlog, and the rate says only what was borne."""
        settings = self.settings
        most = 1  # of the sizes may be used: none that takes too long, nor any far from those that were tried
        tried = max((each.size for each in self._seen), default=0.0)
        for at, size in enumerate(settings.sizes[1:], 2):
            if self._takes(size) > settings.target_s or size > FARTHEST * max(tried, self.current.size):
                break
            most = at
        needed = most if late else len(self.current.sizes) if pressed else 1
        while needed < most and not self._bears(settings.sizes[needed - 1], rate):
            needed += 1
        sizes = settings.sizes[: min(needed, most)]
        return Batching(window_s=self._window(sizes[-1], rate) if pressed else 0.0, sizes=sizes)

    def _bears(self, size: int, rate: float) -> bool:
        """Whether batches of `size` keep up, with some headroom."""
        return size >= HEADROOM * rate * self._takes(size)

    def _window(self, size: int, rate: float) -> float:
        """Until a batch is full at the present rate, as far as half of what is aimed at leaves time to wait
        and to be worked off; 0 where a wait saves too little. A size that larger ones could follow and that
        bears the load as it is needs no wait either."""
        settings = self.settings
        if not rate or (size == settings.sizes[0] and len(settings.sizes) > 1):
            return 0.0
        left_s = max(0.0, settings.target_s / 2 - self.fixed_s) / (1 + rate * self.each_s)
        window_s = min(settings.max_window_s, left_s, size / rate)
        work, waited = self._work(self._gathered(size, rate)), self._work(rate * window_s)
        return window_s if waited < (1 - WORTH_WAITING) * work else 0.0

    def _gathered(self, size: int, rate: float) -> float:
        """How many a batch has by itself: what comes while one runs, up to `size`."""
        spare = 1 - rate * self.each_s
        return min(float(size), rate * self.fixed_s / spare) if spare > 0 else float(size)

    def _work(self, gathered: float) -> float:
        """Seconds for each in batches of so many."""
        return self.each_s + self.fixed_s / max(1.0, gathered)

    def _differs(self, wanted: Batching) -> bool:
        """By more than flutter: another size, a window where there was none, or one half or twice as long."""
        now, then = self.current.window_s, wanted.window_s
        if wanted.sizes != self.current.sizes or (now == 0) != (then == 0):
            return True
        return not now / 2 < then < now * 2 if now else False
