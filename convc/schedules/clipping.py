"""Padding that the taps of a register tile need not read: with taps far apart most of what a filter reads may be padding.

WHEN            3 x 3 taps 12 apart on 14 x 14 points: rows above read 2 of 14 rows, rows below, too: 18 of 42 row and tap pairs are left
THE RULE        a tap is skipped for a tile all of whose points it would read from padding, axis by axis
"""

from __future__ import annotations

import math
from typing import Final

from convc.ir.spec import ConvSpec

__all__ = ["ANNOTATION", "clips", "reach", "share"]

# On the block that sums: four numbers a spatial axis, see `reach`.
ANNOTATION: Final = "clip"

# The tests cost a few cycles each, and fetches of weights that are spread over all taps come in bursts: not for the ordinary border
# of a small map, 3 x 3 taps on 7 x 7 points, of whose products 82 % are left.
_WORTH: Final = 0.6


def reach(spec: ConvSpec) -> list[int]:
    """Return stride, dilation, and where the data begin and end between their padding, for each spatial axis in turn."""
    before = spec.pads[: spec.rank]
    numbers: list[int] = []
    for axis in range(spec.rank):
        begin = before[axis]
        numbers += [spec.strides[axis], spec.dilations[axis], begin, begin + spec.data[2 + axis]]
    return numbers


def share(spec: ConvSpec, tile: tuple[int, ...]) -> float:
    """Return the part of all pairs of tile and tap that are left.

    Args:
        spec: at least two spatial axes.
        tile: points of a tile along each.

    Example:
        >>> aspp = ConvSpec.of((1, 8, 14, 14), (8, 8, 3, 3), pads=(12,) * 4, dilations=(12, 12))
        >>> [round(share(aspp, tile), 2) for tile in ((1, 14), (1, 7), (14, 14))]
        [0.43, 0.29, 1.0]
    """
    numbers = reach(spec)
    left = 1.0
    for axis, size in enumerate(tile):
        stride, dilation, begin, end = numbers[4 * axis : 4 * axis + 4]
        firsts, taps = range(0, spec.output[2 + axis], size), range(spec.kernel[axis])
        lows = [first * stride + tap * dilation for first in firsts for tap in taps]
        kept = sum(low < end and low + (size - 1) * stride >= begin for low in lows)
        left *= kept / max(1, len(lows))
    return left


def clips(spec: ConvSpec) -> bool:
    """Whether so much of what single points read is padding that skipping it can be worth the tests."""
    return math.prod(spec.kernel) > 1 and share(spec, (1,) * spec.rank) <= _WORTH
