"""THE SCHEDULE of `schedules.weight_gradient`: chunks of images outside, so that all taps and channels read them from L2.

for group of output vectors (parallel; with input channel blocks where groups are too few):
    for chunk of rows:
        for input block, r, s, tile of input channels:
            part = sum over the chunk's points                   the register tile: broadcasts of x times vectors of dy
            total += part
dw = total in plain order
"""

from __future__ import annotations

import math

from tvm import s_tir, tirx

from convc.schedules.llvm.tiling import accumulate, parallelize
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["schedule"]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.weight_gradient` scheduled."""
    sch = s_tir.Schedule(func)
    part, total, out = (sch.get_sblock(name) for name in ("part", "total", "unpack"))
    k, c, r, s, ci, v, lane, batch, chunk = sch.get_loops(total)
    groups, blocks = (int(sch.get(loop).extent) for loop in (k, c))
    tile_s, tile_c = (knobs["points"], 1) if knobs["data_block"] == 1 else (1, knobs["points"])
    so, si = sch.split(s, [None, tile_s])
    co, cl = sch.split(ci, [None, tile_c])
    alone = groups % target.cores == 0 or groups >= 4 * target.cores or blocks == 1
    shared = [k] if alone else [k, c]
    inner = [c] if alone else []
    sch.reorder(*shared, batch, chunk, *inner, r, so, co, si, cl, v, lane)
    first = accumulate(sch, part, co, 3, knobs["block"])
    for loop in (si, cl, v):
        sch.unroll(loop)
    sch.vectorize(lane)
    parallelize(sch, shared, knobs)
    sch.decompose_reduction(part, first)
    sch.decompose_reduction(total, batch)
    _unpack(sch, out, knobs)
    return sch.mod["main"]


def _unpack(sch: s_tir.Schedule, out, knobs: Knobs) -> None:
    """Write along memory, filter by filter, from a block of input channels that stays in L1."""
    k, c, r, s = sch.get_loops(out)
    extents = [int(sch.get(loop).extent) for loop in (k, c, r, s)]
    wide = knobs["vectors"] * knobs["block"]
    ko, ki = sch.split(k, [None, min(wide, extents[0])])
    co, ci = sch.split(c, [None, min(knobs["data_block"], extents[1])])
    sch.reorder(ko, co, ki, ci, r, s)
    if math.prod(extents) >= 16 << 10:
        parallelize(sch, [ko, co], knobs)
