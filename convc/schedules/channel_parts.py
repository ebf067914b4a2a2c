"""Sums in parts of the input channels, for layers whose panel of weights outgrows the L2 cache.

Rewrite:
    for tile: y[tile] = sum over c of x[tile, c] w[c]                             every tile reads the whole panel w anew, from L3
    -->
    for part: for tile: sums[part, tile] = sum over c in part of x[tile, c] w[c]  every tile reads a part of it, from L2
    y = sum over parts of sums[part]
WHEN            much of what single points read is padding, see `clipping`, and two vectors' panel does not fit L2: other such layers are
                Winograd's. The knob `parts` of other layers would hide their records.
                2048 -> 256 channels, 3x3 36 apart, 65 x 65, one core of an Emerald Rapids, medians in turns: 194 ms in 8 parts, 314
                in 4, 358 without, 309 by Winograd
COST            a sum more for each part, all parts of one group of channels written and read once
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from tvm import te

from convc.ir.spec import ConvSpec
from convc.schedules import clipping
from convc.schedules.algorithm import two_panels_fit
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["MOST_OF_L2", "added", "part_counts", "scratch_bytes"]

# A panel larger than this is gone before the next tile reads it: 3x3, 2048 -> 256 channels, taps 36 apart, on 65 x 65 points, panels of
# 1.2 MB: 534 ms in tiles of 1 x 13 points, 346 in tiles of 3 x 9; Winograd 318.
MOST_OF_L2: Final = 0.75

# Vectors of output channels of the tile whose panel decides.
_VECTORS: Final = 2


def part_counts(spec: ConvSpec, target: Target) -> tuple[int, ...]:
    """Return the possible values of the knob `parts`; none if the layer has no such knob.

    Args:
        spec: at least two spatial axes.
        target: the machine.
    """
    if spec.group > 1 or spec.in_channels % target.lanes or not clipping.clips(spec):
        return ()
    blocks = spec.in_channels // target.lanes
    panel = 4 * spec.in_channels * math.prod(spec.kernel) * _VECTORS * target.lanes
    if panel <= MOST_OF_L2 * target.l2_bytes:
        return ()
    fitting = (n for n in range(2, blocks + 1) if blocks % n == 0)
    return (1, *[n for n in fitting if two_panels_fit(panel // n, target)][:1])


def scratch_bytes(spec: ConvSpec, knobs: Knobs) -> int:
    """Return the bytes of the sums of all parts of one group of output channels, which each thread has for itself; 0 of one part."""
    parts = knobs.get("parts", 1)
    if parts == 1:
        return 0
    return 4 * parts * knobs["vectors"] * knobs["block"] * math.prod(spec.output[2:])


def added(sums: te.Tensor, parts: int, at: Sequence[Any], lane: Any) -> Any:
    """Return the sum of all parts at a point, whose index is the last but one of `sums`."""
    total = sums(*at, 0, lane)
    for part in range(1, parts):
        total = total + sums(*at, part, lane)
    return total
