"""A bounded buffer of items that any number of readers follow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

from orchestration.errors import OrchestraError, Unavailable

T = TypeVar("T")


class SlowConsumer(Unavailable):
    """The client reads a shared response too slowly: parts that it had not read were dropped."""

    code = "slow_consumer"


class BroadcastBuffer(Generic[T]):
    """Holds up to `max_bytes` of items; beyond it the oldest are dropped.

    While it has all items from the start (`open`), followers may join, and `items` returns them all. After
    `close`, or beyond `max_bytes`, it holds only items that a follower has yet to read. A follower that is
    more than `max_bytes` behind fails with `SlowConsumer`, so that it does not delay the others.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        """Bytes held."""
        self.open = True
        self.ended = False
        self.error: OrchestraError | None = None
        self.followers: set[Follower[T]] = set()
        self._held: deque[tuple[T, int]] = deque()
        self._base = 0
        """The number of items dropped."""

    @property
    def count(self) -> int:
        """The number of items put so far."""
        return self._base + len(self._held)

    def items(self) -> list[T] | None:
        """Return all items, or None if the first ones were dropped."""
        return None if self._base else [item for item, _ in self._held]

    def join(self, wake: Callable[[], None]) -> Follower[T]:
        """Return a new follower, which reads from the start. `wake` is called when there are new items.

        Raises `ValueError` if the buffer is not open.
        """
        if not self.open:
            raise ValueError("the buffer is closed for new followers: its first items may be gone")
        follower = Follower(self, wake)
        self.followers.add(follower)
        return follower

    def leave(self, follower: Follower[T]) -> bool:
        """Remove a follower. Returns whether it was the last one."""
        self.followers.discard(follower)
        self._trim()
        return not self.followers

    def put(self, item: T, size: int) -> None:
        """Add an item of `size` bytes."""
        self._held.append((item, size))
        self.size += size
        if self.size > self.max_bytes:
            self.open = False
        self._trim()
        self._wake()

    def end(self, error: OrchestraError | None = None) -> None:
        """No more items come; with `error`, followers get it after the last item."""
        self.ended = True
        self.error = error
        self._wake()

    def close(self) -> None:
        """Refuse new followers, and hold only what the present ones have yet to read."""
        self.open = False
        self._trim()

    def _wake(self) -> None:
        for follower in self.followers:
            follower.wake()

    def _trim(self) -> None:
        if self.open:
            return
        needed = min((follower.read for follower in self.followers), default=self.count)
        while self._held and (self._base < needed or self.size > self.max_bytes):
            self.size -= self._held.popleft()[1]
            self._base += 1

    def since(self, read: int) -> list[T]:
        """Return the items after the first `read`. Raises `SlowConsumer` if some were dropped."""
        if read < self._base:
            raise SlowConsumer(f"the reader is too slow: more than {self.max_bytes} bytes wait for it")
        new = [item for item, _ in islice(reversed(self._held), self.count - read)]
        new.reverse()
        return new


class Follower(Generic[T]):
    """A reader of the buffer. `read` is the number of items it has taken."""

    __slots__ = ("buffer", "read", "wake")

    def __init__(self, buffer: BroadcastBuffer[T], wake: Callable[[], None]) -> None:
        self.buffer = buffer
        self.wake = wake
        self.read = 0

    def take(self) -> list[T]:
        """Return the new items since the last call, in order. Raises `SlowConsumer`."""
        new = self.buffer.since(self.read)
        self.read += len(new)
        return new

    @property
    def done(self) -> bool:
        """Whether it has taken the last item."""
        return self.buffer.ended and self.read == self.buffer.count
