"""Prefix cache: reuse of keys and values between prompts with a common prefix."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors.engine.kv import KvShape

_ROOT = 0
"""The serial of the (virtual) block before a first block."""

_Key = tuple[int, bytes]
"""The serial of the preceding block, and this block's tokens."""


@dataclass(frozen=True, slots=True)
class _Block:
    serial: int
    place: int


@dataclass(slots=True)
class Chain:
    """The cached blocks at the beginning of one prompt."""

    last: int | None = _ROOT
    """Serial of the last block; None after a block could not be stored."""
    keys: list[_Key] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)


class BlockStore(Protocol):
    """A cache that can store blocks of its rows; see `actors.engine.kv.KvCache`."""

    @property
    def shape(self) -> KvShape: ...

    def reserve(self, blocks: int, block: int) -> None: ...

    def keep(self, place: int, row: int, start: int) -> None: ...

    def restore(self, place: int, row: int, start: int) -> None: ...

    def drop(self, place: int) -> None: ...


class PrefixCache:
    """Blocks of prompt tokens with their keys and values, shared by all prompts that begin with them.

    A block is found by its tokens and the preceding block, as in vLLM's automatic prefix caching. Only
    prompts are cached, as other requests begin with them. A copy equals a recomputation except for the order
    of float32 sums. The least recently used block is evicted first; `touch` marks a prompt's blocks from its
    end to its beginning, so that the end of a chain is evicted before the blocks it depends on.
    """

    def __init__(self, kv: BlockStore, *, block: int, capacity_bytes: int) -> None:
        self.block = block
        self.block_bytes = block * kv.shape.token_bytes
        self.capacity = capacity_bytes // self.block_bytes
        self._kv = kv
        if self.capacity:
            kv.reserve(self.capacity, block)
        self._blocks: OrderedDict[_Key, _Block] = OrderedDict()
        self._free = list(range(self.capacity - 1, -1, -1))
        self._serial = _ROOT

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def held_bytes(self) -> int:
        """Bytes of the cached blocks."""
        return len(self._blocks) * self.block_bytes

    def load(self, chain: Chain, tokens: NDArray[np.int64], row: int, start: int) -> bool:
        """Copy the block `tokens`, next in `chain`, to position `start` of `row`. False if it is not
        cached."""
        if chain.last is None:
            return False
        key = (chain.last, tokens.tobytes())
        found = self._blocks.get(key)
        if found is None:
            return False
        self._kv.restore(found.place, row, start)
        chain.last = found.serial
        chain.keys.append(key)
        return True

    def store(self, chain: Chain, tokens: NDArray[np.int64], row: int, start: int) -> bool:
        """Store the block `tokens`, next in `chain`, from position `start` of `row`. False if not
        possible."""
        if chain.last is None or self.capacity == 0:
            chain.last = None
            return False
        key = (chain.last, tokens.tobytes())
        known = self._blocks.get(key)
        if known is None:
            place = self._free.pop() if self._free else self._blocks.popitem(last=False)[1].place
            self._serial += 1
            self._kv.keep(place, row, start)
            known = self._blocks[key] = _Block(self._serial, place)
        chain.last = known.serial
        chain.keys.append(key)
        return True

    def touch(self, chain: Chain) -> None:
        """Mark the blocks of `chain` as used."""
        for key in reversed(chain.keys):
            if key in self._blocks:
                self._blocks.move_to_end(key)

    def shrink(self, size: int) -> None:
        """Evict the least recently used blocks until the rest takes at most `size` bytes."""
        while self.held_bytes > size:
            place = self._blocks.popitem(last=False)[1].place
            self._kv.drop(place)
            self._free.append(place)

    def clear(self) -> None:
        self.shrink(0)
