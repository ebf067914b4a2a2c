"""THE SCHEDULE of `schedules.pooled`, around that of the convolution's algorithm.

direct                                          winograd
for batch, group of channels, strip (parallel): for batch, strip of rows (parallel):
    Y = rows of the convolution                     V;  for group of channels:  M;  Y = rows of the convolution
    for row, column of the strip:                       for row, column of the strip:
        z = pool(Y), a vector at a time                     z = pool(Y)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from tvm import s_tir

from convc.schedules.llvm.tiling import accumulate, extent, parallelize, reductions
from convc.schedules.plan import Knobs

__all__ = ["STAGES", "Strips", "in_strips", "is_pooled"]

# Blocks between a convolution's and the last one.
STAGES: Final = ("Y", "window")

# Taps that are unrolled; a mean over a whole plane is a loop.
_MOST_TAPS: Final = 16

Loop = Any
Block = Any


@dataclass(frozen=True, slots=True)
class Strips:
    """The loops around a strip, and what is left to do when the convolution is scheduled.

    Attributes:
        image, group, strip: over images, groups of channels, strips; `part` of the strips that one thread takes, if they are shared so.
        window: the pool's block, and the loop before which its sums begin.
    """

    image: Loop
    part: Sequence[Loop]
    group: Loop
    strip: Loop
    window: tuple[Block, Loop]

    @property
    def shared(self) -> list[Loop]:
        """The loops that threads share out, of the order by groups."""
        return [self.image, *(self.part or (self.group, self.strip))]

    def finish(self, sch: s_tir.Schedule) -> None:
        """Let the pool's sums begin with their first element; comes after `parallelize`."""
        sch.decompose_reduction(*self.window)


def is_pooled(knobs: Knobs) -> bool:
    """Whether a kernel with these knobs has a pool behind its convolution."""
    return "strip" in knobs


def in_strips(
    sch: s_tir.Schedule, pool: Block, knobs: Knobs, outermost: Literal["group", "strip"]
) -> Strips | None:
    """Schedule the pool, and compute Y for a strip of one group of channels; None where `strip` is 0 and Y is computed as a whole.

    Args:
        sch: the schedule.
        pool: the last block.
        knobs: `strip`, `vectors` and `block`; `chunks` parts of the strips, one a thread, where they divide evenly.
        outermost: the order of the two loops.
    """
    n, k, p, q, lane = sch.get_loops(pool)
    if not knobs["strip"]:
        window = _in_registers(sch, q, knobs)
        sch.vectorize(lane)
        parallelize(sch, [n, k, p], knobs)
        sch.decompose_reduction(*window)
        return None
    group, k = sch.split(k, [None, min(knobs["vectors"], extent(sch, k))])
    strip, p = sch.split(p, [None, knobs["strip"]])
    part = []
    chunks = knobs.get("chunks", 1)
    if chunks > 1 and extent(sch, strip) % chunks == 0:
        first, strip = sch.split(strip, [chunks, None])
        part = [first]
    around = (group, strip) if outermost == "group" else (strip, group)
    sch.reorder(n, *part, *around, p, q, k, lane)
    window = _in_registers(sch, q, knobs)
    sch.compute_at(sch.get_sblock("Y"), around[-1], preserve_unit_loops=True)
    sch.unroll(k)
    sch.vectorize(lane)
    return Strips(n, part, group, strip, window)


def _in_registers(sch: s_tir.Schedule, column: Loop, knobs: Knobs) -> tuple[Block, Loop]:
    """Reduce the windows of a column in registers; return the block and the loop before which it begins."""
    window = sch.get_sblock("window")
    axes = reductions(sch, window)
    taps = math.prod(int(axis.dom.extent) for axis in sch.get(window).iter_vars[-axes:])
    unroll = axes if taps <= _MOST_TAPS else 0
    return window, accumulate(sch, window, column, axes, knobs["block"], unroll=unroll)
