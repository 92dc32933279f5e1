"""Cancels of work: applied where the work is here, and remembered where it has not arrived yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.message import unix_ns
from actors.bus.subjects import StreamAddress


class CancelRegistry:
    """Listens to every cancel. `cancel` stops the work with that id, and returns whether it was here; it
    also gets the time at which the caller left, as Unix time in nanoseconds, 0 if unknown.

    A cancel may overtake its work, or the work may still be in the queue. So the newest `limit` ids of work
    that was not here are remembered: `work_id in registry`.
    """

    def __init__(self, bus: Bus, cancel: Callable[[str, int], bool], *, limit: int) -> None:
        self.bus = bus
        self.limit = limit
        self._cancel = cancel
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(StreamAddress("*.*").cancel, self._on_cancel)

    async def stop(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def __contains__(self, work_id: str) -> bool:
        return work_id in self._ids

    @property
    def ids(self) -> frozenset[str]:
        """The remembered ids."""
        return frozenset(self._ids)

    def forget(self, work_id: str) -> None:
        """Forget the id: its work has ended. Harmless for an id that is not remembered."""
        self._ids.pop(work_id, None)

    def _on_cancel(self, message: Message) -> None:
        work_id = StreamAddress.parse(message.subject).id
        if not self._cancel(work_id, unix_ns(message.data)):
            self.remember(work_id)

    def remember(self, work_id: str) -> None:
        """Remember that the work with this id must not start."""
        self._ids[work_id] = None
        if len(self._ids) > self.limit:
            self._ids.popitem(last=False)
