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

from convc.schedules.llvm.tiling import accumulate, parallelize, reductions
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule", "schedule_lanes"]

# Elements of the result from which on its copy is shared out.
_PARALLEL = 16 << 10


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.weight_gradient` scheduled."""
    sch = begin(func)
    part, total, out = (sch.get_sblock(name) for name in ("part", "total", "unpack"))
    spatial, chunks = _split_loops(sch, total)
    k, c, *taps, s, ci, v, lane = spatial
    groups, blocks = (int(sch.get(loop).extent) for loop in (k, c))
    tile_s, tile_c = (knobs["points"], 1) if knobs["data_block"] == 1 else (1, knobs["points"])
    so, si = sch.split(s, [None, tile_s])
    co, cl = sch.split(ci, [None, tile_c])
    alone = groups % target.cores == 0 or groups >= 4 * target.cores or blocks == 1
    shared = [k] if alone else [k, c]
    inner = [c] if alone else []
    sch.reorder(*shared, *chunks, *inner, *taps, so, co, si, cl, v, lane)
    first = accumulate(sch, part, co, 3, knobs["block"])
    for loop in (si, cl, v):
        sch.unroll(loop)
    sch.vectorize(lane)
    parallelize(sch, shared, knobs)
    sch.decompose_reduction(part, first)
    sch.decompose_reduction(total, chunks[0])
    _unpack(sch, out, knobs)
    return sch.mod["main"]


def schedule_lanes(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.weight_gradient_lanes` scheduled: the register tile is taps by one vector of filters."""
    sch = begin(func)
    part, total, out = (sch.get_sblock(name) for name in ("part", "total", "unpack"))
    spatial, chunks = _split_loops(sch, total)
    k, i, *planes, r, s, lane = spatial
    ro, ri = sch.split(r, [None, knobs["tap_rows"]])
    so, si = sch.split(s, [None, knobs["tap_columns"]])
    alone = int(sch.get(k).extent) >= target.cores
    shared, inner = ([k], [i]) if alone else ([k, i], [])
    sch.reorder(*shared, *chunks, *inner, *planes, ro, so, ri, si, lane)
    first = accumulate(sch, part, so, 3, knobs["block"])
    for loop in (ri, si):
        sch.unroll(loop)
    sch.vectorize(lane)
    parallelize(sch, shared, knobs)
    sch.decompose_reduction(part, first)
    sch.decompose_reduction(total, chunks[0])
    if math.prod(int(sch.get(loop).extent) for loop in sch.get_loops(out)) >= _PARALLEL:
        parallelize(sch, sch.get_loops(out)[:1], knobs)
    return sch.mod["main"]


def _split_loops(sch: s_tir.Schedule, total) -> tuple[list, list]:
    """Return the loops of the result and those of the sum over chunks."""
    loops = sch.get_loops(total)
    count = reductions(sch, total)
    return list(loops[:-count]), list(loops[-count:])


def _unpack(sch: s_tir.Schedule, out, knobs: Knobs) -> None:
    """Write along memory, filter by filter, from a block of input channels that stays in L1."""
    k, c, *taps = sch.get_loops(out)
    extents = [int(sch.get(loop).extent) for loop in (k, c, *taps)]
    wide = knobs["vectors"] * knobs["block"]
    ko, ki = sch.split(k, [None, min(wide, extents[0])])
    co, ci = sch.split(c, [None, min(knobs["data_block"], extents[1])])
    sch.reorder(ko, co, ki, ci, *taps)
    if math.prod(extents) >= _PARALLEL:
        parallelize(sch, [ko, co], knobs)
