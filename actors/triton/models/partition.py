"""A model partitioned into stages: their layers, and the protocol between driver and stages."""

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
    """Number of the first layer, from 0."""
    last: int
    """Number of the layer after the last one."""


def split_layers(layers: int, partitions: int) -> list[LayerRange]:
    """`layers` split into `partitions` ranges that differ by at most one layer, the longer ones first.

    Equal ranges need equal memory if the first stage's embedding is as large as the last one's output layer.
    Raises InvalidRequest for more partitions than layers.
    """
    if not 1 <= partitions <= layers:
        raise InvalidRequest(
            f"{layers} layers cannot be split into {partitions} partitions: write 1 to {layers}",
            param="partitions",
        )
    whole, more = divmod(layers, partitions)
    ends = [whole * at + min(at, more) for at in range(partitions + 1)]
    return [LayerRange(first, last) for first, last in pairwise(ends)]


def whole_shape(manifest: ModelManifest) -> KvShape:
    """The size of a token's keys and values in all stages, in float32; on a GPU it is half of that."""
    return KvShape(layers=manifest.layers, kv_heads=manifest.kv_heads, head_dim=manifest.head_dim)


class StageCommand(IntEnum):
    """Operations on a stage's keys and values before a step: the first number of a command, then up to three
    arguments (0 if unused)."""

    MOVE = 1
    """(source, target, tokens): copy the first tokens of a row to another."""
    FREE = 2
    """(row,): free the row's memory."""
    KEEP = 3
    """(row, place, start): copy the block at token `start` of a row to a place of the prefix cache."""
    RESTORE = 4
    """(row, place, start): copy a cached block to token `start` of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCall:
    """The control data of a step of rows `row` to `row + n - 1`, sent to every stage with the tensors.

    `lengths` int32 [n], the tokens that each row holds already; `commands` int32 [k, 4], carried out before;
    n of 0 only carries out commands. `driver` is the driver's start time in nanoseconds: a stage
    obeys the newest driver, and frees the rows of older ones.
    """

    driver: int
    row: int
    lengths: NDArray[np.int32]
    commands: NDArray[np.int32]
