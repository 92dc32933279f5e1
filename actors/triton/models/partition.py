"""A model cut into stages: which layers each holds, and what the driver and the stages say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from actors.engine.kv import KvShape
from actors.models.manifest import ModelManifest
from orchestration.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class LayerRange:
    """The layers `first` to `last - 1` of a model."""

    first: int
    last: int


def split_layers(layers: int, partitions: int) -> list[LayerRange]:
    """`layers` cut into `partitions` runs that differ by one layer at most, the longer ones first.

    Equal runs are equal memory where the first stage's embedding is as large as the last one's output layer.
    Raises InvalidRequest for more partitions than layers.
    """
    if not 1 <= partitions <= layers:
        raise InvalidRequest(
            f"{layers} layers cannot be cut into {partitions} partitions: 1 to {layers}", param="partitions"
        )
    whole, more = divmod(layers, partitions)
    ends = [whole * at + min(at, more) for at in range(partitions + 1)]
    return [LayerRange(first, last) for first, last in pairwise(ends)]


def whole_shape(manifest: ModelManifest) -> KvShape:
    """A token's keys and values in all stages together, in float32; on a GPU they take half of that."""
    return KvShape(layers=manifest.layers, kv_heads=manifest.kv_heads, head_dim=manifest.head_dim)


class StageCommand(IntEnum):
    """What a stage does to its keys and values before a step: the first number of a command, then up to three
    more (0 where unused)."""

    MOVE = 1
    """(source, target, tokens): copy the first tokens of a row to another."""
    FREE = 2
    """(row,): give the row's memory back."""
    KEEP = 3
    """(row, place, start): copy the block at token `start` of a row to a place for kept ones."""
    RESTORE = 4
    """(row, place, start): copy a kept block to token `start` of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCall:
    """What a step of rows `row` to `row + n - 1` tells every stage, beside what the layers compute with.

    `lengths` int32 [n], the tokens that each row holds already; `commands` int32 [k, 4], carried out before;
    n of 0 only carries out commands. `driver` is the time at which the driver began, in nanoseconds: a stage
    obeys the youngest it has heard of, and frees what an older one left.
    """

    driver: int
    row: int
    lengths: NDArray[np.int32]
    commands: NDArray[np.int32]
