"""THE SCHEDULE of `schedules.bottleneck`.

for batch, strip of rows (parallel):
    for group of channels in between:
        for row, tile:                     e = epilogue1(w1 x)       the register tile
        for vector, row:                   d = epilogue2(w2 * e)     all tiles of the row unrolled: left and right padding is no code
    for group of output channels, row, tile:
                                           y = epilogue3(w3 d)       the register tile
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx

from convc.schedules.llvm.tiling import (
    accumulate,
    blocks_of,
    extent,
    inline_between,
    own_loops,
    reductions,
    split_tail,
)
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["schedule"]

Block = Any
Loop = Any


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.bottleneck` scheduled."""
    sch = s_tir.Schedule(func)
    out = inline_between(sch, ("acc1", "E", "acc2", "D", "acc3"))
    named = {sch.get(block).name_hint: block for block in blocks_of(sch)}
    n, k, p, q, lane = sch.get_loops(out)
    strip, p = sch.split(p, [None, knobs["rows"]])
    zeroed = []
    if "acc3" in named:
        ko, ki = sch.split(k, [None, min(knobs["out_vectors"], extent(sch, k))])
        qo, qi = split_tail(sch, q, extent(sch, q), knobs["out_cols"])
        sch.reorder(n, strip, ko, p, qo, ki, qi, lane)
        zeroed.append(
            (named["acc3"], _tile(sch, named["acc3"], qo, (ki, qi), lane, knobs["out_block"]))
        )
        D = named["D"]
        sch.compute_at(D, strip, preserve_unit_loops=True)
    else:
        D = out
        sch.reorder(n, strip, k, p, q, lane)
    group = _filter(sch, D, named["acc2"], knobs, zeroed)
    if "E" in named:
        sch.compute_at(named["E"], group, preserve_unit_loops=True)
        _, k, p, q, lane = own_loops(sch, named["E"])
        qo, qi = split_tail(sch, q, extent(sch, q), knobs["cols"])
        sch.reorder(p, qo, k, qi, lane)
        zeroed.append((named["acc1"], _tile(sch, named["acc1"], qo, (k, qi), lane, knobs["block"])))
    if knobs.get("parallel", 1):
        sch.parallel(sch.fuse(n, strip))
    for block, loop in zeroed:
        sch.decompose_reduction(block, loop)
    return sch.mod["main"]


def _tile(
    sch: s_tir.Schedule, acc: Block, at: Loop, unrolled: tuple[Loop, ...], lane: Loop, block: int
) -> Loop:
    """Compute sums at a tile in registers; return the loop before which they are zeroed."""
    first = accumulate(sch, acc, at, reductions(sch, acc), block)
    for loop in unrolled:
        sch.unroll(loop)
    sch.vectorize(lane)
    return first


def _filter(
    sch: s_tir.Schedule, D: Block, acc: Block, knobs: Knobs, zeroed: list[tuple[Block, Loop]]
) -> Loop:
    """Schedule the depthwise layer; return the loop over groups of channels."""
    _, k, p, q, lane = own_loops(sch, D)
    group, k = sch.split(k, [None, knobs["group"]])
    qo, qi = sch.split(q, [None, knobs["strip"]])
    sch.reorder(group, k, p, qo, qi, lane)
    first = accumulate(sch, acc, qo, reductions(sch, acc), knobs["block"], unroll=1)
    sch.unroll(qo)
    sch.unroll(qi)
    sch.vectorize(lane)
    zeroed.append((acc, first))
    return group
