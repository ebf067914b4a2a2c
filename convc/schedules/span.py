"""Groups in kernels whose unit is a block of channels: which blocks of data a vector of results reads, and weights to match.

A vector of results may hold channels of several groups, or a part of one; it reads the whole blocks that their inputs lie in. The
weights between a result and an input of another group are zeros (a block-diagonal matrix), so that any group count runs in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from convc.ir.spec import ConvSpec

__all__ = ["Span", "swapped"]


@dataclass(frozen=True, slots=True)
class Span:
    """The blocks of data that each vector of results reads.

    Attributes:
        block: channels of a block of data.
        wide: channels of a vector of results.
        group_c, group_k: channels of a group, in and out.
        channels: input channels of all groups.
        blocks: how many blocks one after another every vector of results reads; of one group, all.

    Example:
        >>> grouped = ConvSpec.of((1, 48, 9, 9), (48, 24, 3, 3), group=2)
        >>> span = Span.of(grouped, block=16, wide=8)
        >>> span.blocks, [span.first(vector) for vector in range(6)]
        (2, [0, 0, 0, 1, 1, 1])
    """

    block: int
    wide: int
    group_c: int
    group_k: int
    channels: int
    blocks: int

    @staticmethod
    def of(spec: ConvSpec, block: int, wide: int) -> Span:
        """Return the blocks for a convolution, or the transpose of one."""
        group_c, group_k = spec.in_channels // spec.group, spec.out_channels // spec.group
        blocks = 0
        for begin in range(0, spec.out_channels, wide):
            last = min(begin + wide, spec.out_channels) - 1
            first_block = begin // group_k * group_c // block
            last_block = ((last // group_k + 1) * group_c - 1) // block
            blocks = max(blocks, last_block - first_block + 1)
        return Span(block, wide, group_c, group_k, spec.in_channels, blocks)

    @property
    def all_blocks(self) -> int:
        """Blocks of the data."""
        return -(-self.channels // self.block)

    def first(self, vector: Any) -> Any:
        """Return the block at which a vector of results begins to read; of a number or of a loop variable."""
        if self.blocks == self.all_blocks:
            return 0
        first = vector * self.wide // self.group_k * self.group_c // self.block
        last = self.all_blocks - self.blocks
        if isinstance(vector, int):
            return min(first, last)
        if self.group_k % self.wide == 0 and self.group_c % self.block == 0:
            return first
        # Here, since error bounds are computed where TVM is not installed, and need this file.
        from tvm import tirx

        return tirx.min(first, last)

    def spread(self, weight: np.ndarray) -> np.ndarray:
        """Return weights (K, C/group, ...) as (vectors, wide, blocks block, ...): each result's weights by what it reads."""
        k, c, *taps = weight.shape
        vectors = -(-k // self.wide)
        spread = np.zeros((vectors, self.wide, self.blocks * self.block, *taps), weight.dtype)
        for channel in range(k):
            vector, lane = divmod(channel, self.wide)
            begin = channel // self.group_k * self.group_c - self.first(vector) * self.block
            spread[vector, lane, begin : begin + c] = weight[channel]
        return spread


def swapped(weight: np.ndarray, group: int) -> np.ndarray:
    """Return the weights (C, K/group, ...) of a transposed convolution as (K, C/group, ...)."""
    c, k, *taps = weight.shape
    grouped = weight.reshape(group, c // group, k, *taps).swapaxes(1, 2)
    return grouped.reshape(group * k, c // group, *taps)
