"""Which events a reader wants."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from actors.bus.subjects import LogSubject
from orchestration.log_events import LogEvent, LogKind, LogLevel

LEVELS = tuple(LogLevel)
MAX_SUBJECTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """The events with all of these properties; an empty one is any."""

    level: LogLevel = LogLevel.DEBUG
    """Minimum level."""
    kinds: tuple[LogKind, ...] = ()
    run: str = ""
    trace: str = ""
    caller: str = ""
    model: str = ""
    node: str = ""
    process: str = ""
    since: float = 0.0
    """Unix time in seconds; 0: the beginning."""
    until: float = 0.0
    """Unix time in seconds; 0: now."""

    def matches(self, event: LogEvent) -> bool:
        for name in ("run", "trace", "caller", "model", "node", "process"):
            wanted = getattr(self, name)
            if wanted and getattr(event, name) != wanted:
                return False
        if (self.since and event.at < self.since) or (self.until and event.at > self.until):
            return False
        if self.kinds and event.name.partition(".")[0] not in self.kinds:
            return False
        return LEVELS.index(event.level) >= LEVELS.index(self.level)

    @property
    def is_story(self) -> bool:
        """Whether the events belong to one run or trace, and so are few."""
        return bool(self.run or self.trace)

    def subjects(self) -> list[str]:
        """Filters of subjects that the events match; others may match them too. Empty: no filter."""
        levels = [""] if self.level in (LogLevel.DEBUG, LogLevel.INFO) else LEVELS[LEVELS.index(self.level) :]
        kinds = self.kinds or ("",)
        if len(levels) * len(kinds) > MAX_SUBJECTS:
            kinds = ("",)
        fields = {"caller": self.caller, "run": self.run, "trace": self.trace}
        filters = [
            LogSubject(level=level, kind=kind, **fields).filter for level, kind in product(levels, kinds)
        ]
        return [] if filters == [LogSubject().filter] else filters
