"""Adapts the batch size, and the time that the first request of a batch waits for others, to the load.

A batch of `n` takes about `fixed_s + each_s * n` seconds. At low load, batches are small and do not wait.
Under pressure the size grows to what sustains the load, as long as a batch ends within the target latency
(batch size from a measured linear cost and a latency objective: Clipper, Crankshaw et al., 2017). Waiting
pays only if the batches that form by themselves, while the last one runs, are so small that larger ones save
a good part of the work. That is calculated from the measured cost.

Pure: `now` is in seconds on a clock that never goes back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from orchestration.errors import InvalidRequest

HEADROOM = 1.25
"""A chosen size must sustain this multiple of the present rate."""
HIGH_LOAD, LOW_LOAD = 0.75, 0.45
"""Shares of the time spent in batches, above which the load counts as high and below which as low."""
MIN_SAVING = 0.3
"""The minimum share of the work that waiting must save; less could not be measured."""
MAX_GROWTH = 4
"""The maximum size, as a multiple of the largest observed batch: beyond it the measured cost is not
trusted."""
MAX_OBSERVATIONS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingSettings:
    """`target_s` is the target time from arrival to end. At least `hold_s` pass between two changes, and
    `calm_s` at low load before a decrease; if a change costs a reload, both should be long. Observations of
    the last `horizon_s` count."""

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
    """Present limits: at most `size` at once, the first of which waits `window_s` for others. `sizes` are the
    preferred sizes, the largest last."""

    window_s: float
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.sizes[-1]


@dataclass(frozen=True, slots=True)
class _Observation:
    at: float
    size: float
    waited_s: float
    took_s: float
    batches: int


class AdaptiveBatching:
    """Decides for one model. Call `observe` for each batch, or for several at once. `decide` may be called at
    any time, and returns the same object until a change is due.

    The caller applies the change: an engine sets its limits, Triton gets a new configuration.
    """

    def __init__(self, settings: BatchingSettings, now: float, current: Batching | None = None) -> None:
        """`current` are the initial limits, with the first few of the sizes; by default the smallest one."""
        self.settings = settings
        self.current = current or Batching(window_s=0.0, sizes=settings.sizes[:1])
        self._recent: deque[_Observation] = deque(maxlen=MAX_OBSERVATIONS)
        self._started_at = self._changed_at = self._calm_since = now
        self.fixed_s = 0.0
        self.each_s = 0.0
        """Seconds for a batch, and for each request in it; fitted when sizes differed last."""

    def observe(self, now: float, *, size: float, waited_s: float, took_s: float, batches: int = 1) -> None:
        """Add `batches` batches of the average size `size`, which took `took_s` each. `waited_s` is the
        longest wait before them, or the average one if only that is known."""
        self._recent.append(_Observation(now, size, waited_s, took_s, batches))

    def decide(self, now: float) -> Batching:
        """The limits from now on."""
        settings = self.settings
        while self._recent and self._recent[0].at < now - settings.horizon_s:
            self._recent.popleft()
        busy, waited, rate = self._load(now)
        calm = busy < LOW_LOAD and waited < settings.target_s / 4
        if not calm:
            self._calm_since = now
        if now - self._changed_at < settings.hold_s:
            return self.current
        pressed = busy > HIGH_LOAD or waited > settings.target_s / 2
        if not pressed and now - self._calm_since < settings.calm_s:
            return self.current
        self._fit()
        wanted = self._wanted(rate, pressed, late=waited > settings.target_s)
        if self._differs(wanted):
            self.current, self._changed_at = wanted, now
        return self.current

    def _load(self, now: float) -> tuple[float, float, float]:
        """The share of time spent in batches, the 90th percentile of the wait beyond the window, and the
        requests per second."""
        span = max(min(self.settings.horizon_s, now - self._started_at), 1e-3)
        if not self._recent:
            return 0.0, 0.0, 0.0
        waits = sorted(max(0.0, each.waited_s - self.current.window_s) for each in self._recent)
        busy = sum(each.took_s * each.batches for each in self._recent) / span
        rate = sum(each.size * each.batches for each in self._recent) / span
        return busy, waits[len(waits) * 9 // 10], rate

    def _fit(self) -> None:
        """Fit the cost by least squares. One size alone gives only the cost of that size, which is split in
        half until another size is observed."""
        count = sum(each.batches for each in self._recent)
        if not count:
            return
        size = sum(each.size * each.batches for each in self._recent) / count
        took = sum(each.took_s * each.batches for each in self._recent) / count
        spread = sum(each.batches * (each.size - size) ** 2 for each in self._recent) / count
        if spread > 0.01 * size * size:
            common = sum(each.batches * (each.size - size) * (each.took_s - took) for each in self._recent)
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
        """If requests are `late` there is a backlog, and the rate is only what was processed."""
        settings = self.settings
        most = 1  # sizes that may be used: none that takes too long, nor any far from those observed
        tried = max((each.size for each in self._recent), default=0.0)
        for at, size in enumerate(settings.sizes[1:], 2):
            if self._takes(size) > settings.target_s or size > MAX_GROWTH * max(tried, self.current.size):
                break
            most = at
        needed = most if late else len(self.current.sizes) if pressed else 1
        while needed < most and not self._bears(settings.sizes[needed - 1], rate):
            needed += 1
        sizes = settings.sizes[: min(needed, most)]
        return Batching(window_s=self._window(sizes[-1], rate) if pressed else 0.0, sizes=sizes)

    def _bears(self, size: int, rate: float) -> bool:
        """Whether batches of `size` sustain the rate, with some headroom."""
        return size >= HEADROOM * rate * self._takes(size)

    def _window(self, size: int, rate: float) -> float:
        """The time in which a batch fills at the present rate, limited so that waiting and processing take at
        most half of `target_s`. 0 if waiting saves too little, and for the smallest size if there are larger
        ones."""
        settings = self.settings
        if not rate or (size == settings.sizes[0] and len(settings.sizes) > 1):
            return 0.0
        left_s = max(0.0, settings.target_s / 2 - self.fixed_s) / (1 + rate * self.each_s)
        window_s = min(settings.max_window_s, left_s, size / rate)
        work, waited = self._work(self._gathered(size, rate)), self._work(rate * window_s)
        return window_s if waited < (1 - MIN_SAVING) * work else 0.0

    def _gathered(self, size: int, rate: float) -> float:
        """The size of a batch without waiting: the arrivals while one runs, up to `size`."""
        spare = 1 - rate * self.each_s
        return min(float(size), rate * self.fixed_s / spare) if spare > 0 else float(size)

    def _work(self, gathered: float) -> float:
        """Seconds for each request in batches of this size."""
        return self.each_s + self.fixed_s / max(1.0, gathered)

    def _differs(self, wanted: Batching) -> bool:
        """Whether the change is large enough: another size, a window instead of none, or one half or twice as
        long."""
        now, then = self.current.window_s, wanted.window_s
        if wanted.sizes != self.current.sizes or (now == 0) != (then == 0):
            return True
        return not now / 2 < then < now * 2 if now else False
