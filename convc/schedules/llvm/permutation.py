"""THE SCHEDULE of `schedules.permutation`: vectors where runs of elements move as they are, small tiles where the last axis changes.

Rewrite:
    y[i, j, k] = x[i, k, j]
    -->
    for i, j.0, k.0 (parallel): for k.1: for j.1: y[...] = x[...]      reads along memory, writes into a tile in L1
    y[i, k, j, l] = x[i, j, k, l]
    -->
    for i, k, j (parallel): for l (vector): y[...] = x[...]

As the schedule that takes anything has it, in vectors of the result gathered by quotients and remainders, 4 ns an element.
"""

from __future__ import annotations

from tvm import tirx

from convc.schedules.llvm.elementwise import PARALLEL_ELEMENTS
from convc.schedules.llvm.tiling import blocks_of, extent, fused, split_tail
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]

_TILE = 16


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `permutation.compute` scheduled; knob `last`, where the result has the data's last axis."""
    sch = begin(func)
    (move,) = blocks_of(sch)
    loops = list(sch.get_loops(move))
    extents = [extent(sch, loop) for loop in loops]
    total = 1
    for n in extents:
        total *= n
    last = knobs["last"]
    if last == len(loops) - 1:
        *outer, run = loops
        if extents[-1] >= target.lanes:
            sch.vectorize(split_tail(sch, run, extents[-1], target.lanes)[1])
        # TVM fuses no loop whose last round is code of its own.
        shared = outer
    else:
        run, column = loops[last], loops[-1]
        run, ri = split_tail(sch, run, extents[last], min(_TILE, extents[last]))
        column, ci = split_tail(sch, column, extents[-1], min(_TILE, extents[-1]))
        outer = [*loops[:last], *loops[last + 1 : -1]]
        sch.reorder(*outer, run, column, ci, ri)
        whole = extents[last] % min(_TILE, extents[last]) == 0
        shared = [*outer, run] if whole else outer
    if total >= PARALLEL_ELEMENTS and shared:
        sch.parallel(fused(sch, shared))
    return sch.mod["main"]
