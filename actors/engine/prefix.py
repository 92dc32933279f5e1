"""Reuse of keys and values between prompts that begin alike."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors.engine.kv import KvShape

_ROOT = 0
"""The serial before every first block."""

_Key = tuple[int, bytes]
"""The serial of the block before, and this block's tokens."""


@dataclass(frozen=True, slots=True)
class _Block:
    serial: int
    place: int


@dataclass(slots=True)
class Chain:
    """The blocks at the beginning of one prompt, as far as they are kept."""

    last: int | None = _ROOT
    """Serial of the last block; None once a block could not be kept."""
    keys: list[_Key] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)


class BlockStore(Protocol):
    """A cache that can keep blocks of its rows: see `actors.engine.kv.KvCache`."""

    @property
    def shape(self) -> KvShape: ...

    def reserve(self, blocks: int, block: int) -> None: ...

    def keep(self, place: int, row: int, start: int) -> None: ...

    def restore(self, place: int, row: int, start: int) -> None: ...

    def drop(self, place: int) -> None: ...


class PrefixCache:
    """Blocks of prompt tokens with their keys and values, shared by all prompts that begin with them.

    A block is found by its tokens and the block before it, as in vLLM's automatic prefix caching. Only
    prompts are kept: they are what other requests begin with. What is copied is what computing it again
    would give, but for the order of float32 sums. The least recently used block goes first. `touch` counts
    a prompt's blocks as used from its end to its beginning, so ends of chains go before the beginnings they
    hang on.
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
        """What the blocks take now."""
        return len(self._blocks) * self.block_bytes

    def load(self, chain: Chain, tokens: NDArray[np.int64], row: int, start: int) -> bool:
        """Copy the block `tokens`, next in `chain`, to position `start` of `row`, if it is here."""
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
        """Keep the block `tokens`, next in `chain` and computed at position `start` of `row`, if possible."""
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
        """Count the blocks of `chain` as just used."""
        for key in reversed(chain.keys):
            if key in self._blocks:
                self._blocks.move_to_end(key)

    def shrink(self, size: int) -> None:
        """Give back the blocks used longest ago, until the rest takes at most `size` bytes."""
        while self.held_bytes > size:
            place = self._blocks.popitem(last=False)[1].place
            self._kv.drop(place)
            self._free.append(place)

    def clear(self) -> None:
        self.shrink(0)
