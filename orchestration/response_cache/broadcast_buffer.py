"""One generation followed by everyone who asked for the same: a bounded buffer and its readers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

from orchestration.errors import OrchestraError, Unavailable

T = TypeVar("T")


class SlowConsumer(Unavailable):
    """A follower fell so far behind that what it had not read is gone."""

    code = "slow_consumer"


class BroadcastBuffer(Generic[T]):
    """Holds what was said so far, up to `max_bytes`; more lets go of the oldest.

    While it holds everything from the start (`open`), others may join and the whole answer may be kept.
    After `close`, or when it grew past `max_bytes`, it keeps only what a follower has yet to read, and a
    follower more than `max_bytes` behind is lost, so that it holds up nobody else.
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
        """How many were let go of."""

    @property
    def count(self) -> int:
        """How many were put so far."""
        return self._base + len(self._held)

    def items(self) -> list[T] | None:
        """All that was said, or None when the beginning is gone."""
        return None if self._base else [item for item, _ in self._held]

    def join(self, wake: Callable[[], None]) -> Follower[T]:
        """A new reader, from the start. `wake` is called when there is something new.

        Raises `ValueError` when the flight is not open.
        """
        if not self.open:
            raise ValueError("the beginning of this flight may be gone: it takes no more followers")
        follower = Follower(self, wake)
        self.followers.add(follower)
        return follower

    def leave(self, follower: Follower[T]) -> bool:
        """A reader goes; true if it was the last one."""
        self.followers.discard(follower)
        self._trim()
        return not self.followers

    def put(self, item: T, size: int) -> None:
        """Say one thing more, of `size` bytes."""
        self._held.append((item, size))
        self.size += size
        if self.size > self.max_bytes:
            self.open = False
        self._trim()
        self._wake()

    def end(self, error: OrchestraError | None = None) -> None:
        """Nothing more comes; with `error`, that is what followers hear after what was said."""
        self.ended = True
        self.error = error
        self._wake()

    def close(self) -> None:
        """Take no more followers, and hold only what the present ones have yet to read."""
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
        """What was said after the first `read`. Raises `SlowConsumer` when some of it is gone."""
        if read < self._base:
            raise SlowConsumer(f"more than {self.max_bytes} bytes wait to be read: the reader is too slow")
        new = [item for item, _ in islice(reversed(self._held), self.count - read)]
        new.reverse()
        return new


class Follower(Generic[T]):
    """One reader of a flight. `read` counts what it took."""

    __slots__ = ("flight", "read", "wake")

    def __init__(self, flight: BroadcastBuffer[T], wake: Callable[[], None]) -> None:
        self.flight = flight
        self.wake = wake
        self.read = 0

    def take(self) -> list[T]:
        """What is new since the last call, in order. Raises `SlowConsumer`."""
        new = self.flight.since(self.read)
        self.read += len(new)
        return new

    @property
    def done(self) -> bool:
        """Whether it has taken all that will ever come."""
        return self.flight.ended and self.read == self.flight.count
