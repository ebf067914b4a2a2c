"""THE SCHEDULE of an image's move between blocks of channels and channels last: vectors of channels are read and written whole.

Rewrite:
    for n, c.0, h, w, c.1: y[n, c.0, h, w, c.1] = x[n, h, w, c.0 * b + c.1]
    -->
    for n, h (parallel), c.0, w: for c.1 (vector): ...

By way of plain order, 128 channels of 64 x 64 took 1990 us, 1710 of them the transpose, whose vectors were gathered; 3.8 ns an element.
"""

from __future__ import annotations

from tvm import tirx

from convc.schedules.llvm.elementwise import PARALLEL_ELEMENTS
from convc.schedules.llvm.tiling import blocks_of, extent, fused, split_tail
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `lowering.moves.channels_last_kernel` scheduled; knob `block`."""
    sch = begin(func)
    (move,) = blocks_of(sch)
    loops = sch.get_loops(move)
    block, total = knobs["block"], 1
    for loop in loops:
        total *= extent(sch, loop)
    channels = int(func.params[0].shape[-1])
    if len(loops) > len(sch.get(move).reads[0].region):
        n, blocks, row, *columns, lane = loops
        sch.reorder(n, row, blocks, *columns, lane)
        if channels % block:
            sch.annotate(blocks, "pragma_loop_partition_hint", 1)
    else:
        n, row, *columns, c = loops
        blocks, lane = split_tail(sch, c, extent(sch, c), block)
    sch.vectorize(lane)
    if total >= PARALLEL_ELEMENTS:
        sch.parallel(fused(sch, [n, row]))
    return sch.mod["main"]
