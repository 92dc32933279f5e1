"""Notices events that LOGS discarded before any shipper had them.

Each delivery has two numbers: that of the event in the stream, and that of the delivery. Between two
deliveries of which both are known, the stream cannot have gone on by more than the deliveries, unless events
are gone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogGap:
    """Events that were discarded before they were delivered."""

    first: int
    """Place of the first one in the stream."""
    count: int


class GapDetector:
    """Give it the deliveries in their order, and now and then the state of the consumer."""

    def __init__(self) -> None:
        self._delivery = 0
        self._place = 0
        self._known = False

    def seen(self, delivery: int, place: int) -> LogGap | None:
        """A delivery by its two numbers; the gap before it, if there is one. A redelivery tells nothing."""
        if not self._known or delivery <= self._delivery or place <= self._place:
            if not self._known or delivery > self._delivery:
                self._note(delivery, max(place, self._place))
            return None
        others = delivery - self._delivery - 1
        missing = place - self._place - 1 - others
        gap = LogGap(self._place + 1, missing) if missing > 0 else None
        self._note(delivery, place)
        return gap

    def state(self, delivery: int, place: int) -> LogGap | None:
        """The last delivery to any shipper, as the consumer reports it; the gap before it, if there is one:
        of a purge, which moves the consumer on, or before a delivery to another shipper."""
        gap = None
        if self._known and delivery >= self._delivery and place >= self._place:
            missing = place - self._place - (delivery - self._delivery)
            gap = LogGap(self._place + 1, missing) if missing > 0 else None
        if not self._known or (delivery >= self._delivery and place >= self._place):
            self._note(delivery, place)
        return gap

    def _note(self, delivery: int, place: int) -> None:
        self._delivery, self._place, self._known = delivery, place, True
