"""THE SCHEDULE of `schedules.im2col`: a panel is packed once, stays in L2, and every tile of output channels runs over it.

planes of the data
for batch, group, block of pixels (parallel):
    panel = patches of the block                 row by row, each a few long vectors
    for tile of channels, tile of pixels:        tile = w panel      the register tile
    for channel, row of pixels:                  result = epilogue(tile)
"""

from __future__ import annotations

import math
from typing import Any

from tvm import s_tir, tirx

from convc.schedules.llvm.tiling import accumulate, blocks_of, extent, inline_between, parallelize
from convc.schedules.plan import Knobs
from convc.schedules.sharing import shared_out
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]

# A row of up to so many registers is copied as one vector: LLVM makes whole and part registers of it, without loop or test.
_LONGEST_ROW = 4

# Reductions whose innermost axis is at most so long are unrolled along it.
_UNROLLED_TAPS = 9

Loop = Any
Block = Any


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.im2col` scheduled."""
    sch = begin(func)
    stages = ("planes", "panel", "acc", "tile") if knobs["panel"] else ("planes", "acc", "tile")
    out = inline_between(sch, stages)
    named = {sch.get(block).name_hint: block for block in blocks_of(sch)}
    n, k, *spatial = sch.get_loops(out)
    rank, width = len(spatial), extent(sch, spatial[-1])
    g, k = sch.split(k, [extent(sch, sch.get_loops(named["tile"])[1]), None])
    # A slice of three dimensions and a row of one are cut like the image of two.
    sizes = [1, knobs["rows"], knobs["cols"]][-rank:]
    cuts = [sch.split(p, [None, size]) for p, size in zip(spatial, sizes, strict=True)]
    blocks, insides = [outer for outer, _ in cuts], [inner for _, inner in cuts]
    sch.reorder(n, g, *blocks, k, *insides)
    _copy(sch, insides[-1], knobs["cols"], target, whole=width % knobs["cols"] == 0)

    at = blocks[-1]
    sch.compute_at(named["tile"], at, preserve_unit_loops=True)
    shared = [sch.get_loops(named["tile"])[-4]]
    first = _product(sch, named["acc"], named["tile"], knobs, rank)
    if "panel" in named:
        sch.compute_at(named["panel"], at, preserve_unit_loops=True)
        shared.append(_pack(sch, named["panel"], knobs, target, rank))
    if "planes" in named:
        _pad(sch, named["planes"], knobs, rank)
    units = math.prod(extent(sch, loop) for loop in (n, g, *blocks))
    if target.cores == 1 or shared_out(units, target):
        parallelize(sch, [n, g, *blocks], knobs)
    else:
        # Too few blocks to share out: the channels of each are shared out instead.
        for loop in shared:
            parallelize(sch, [loop], knobs)
    sch.decompose_reduction(named["acc"], first)
    return sch.mod["main"]


def _copy(sch: s_tir.Schedule, cols: Loop, count: int, target: Target, *, whole: bool) -> None:
    """Copy a row of pixels: as one vector, or by vectors with a tail."""
    if whole and count <= _LONGEST_ROW * target.lanes:
        sch.vectorize(cols)
        return
    lanes = min(target.lanes, count)
    vectors, lane = sch.split(cols, [None, lanes])
    if not whole or count % lanes:
        sch.annotate(vectors, "pragma_loop_partition_hint", 1)
    sch.vectorize(lane)


def _product(sch: s_tir.Schedule, acc: Block, tile: Block, knobs: Knobs, rank: int) -> Loop:
    """Schedule the matrix product by the register tile; return the first reduction loop."""
    *_, channels, at, pixels = sch.get_loops(tile)
    vectors, lane = sch.split(pixels, [None, knobs["lanes"]])
    sch.reorder(at, channels, vectors, lane)
    taps = extent(sch, sch.get_loops(acc)[-1])
    unroll = int(not knobs["panel"] and taps <= _UNROLLED_TAPS)
    first = accumulate(sch, acc, at, 1 + rank, knobs["lanes"], unroll=unroll)
    for loop in (channels, vectors):
        sch.unroll(loop)
    sch.vectorize(lane)
    if not knobs["panel"]:
        return first
    # On a panel all reductions together are one run of memory.
    loops = sch.get_loops(acc)
    begin = len(loops) - len(sch.get(acc).iter_vars) - 1
    return sch.fuse(*loops[begin : begin + 1 + rank])


def _pad(sch: s_tir.Schedule, planes: Block, knobs: Knobs, rank: int) -> None:
    """Copy the data into their planes; a strided copy goes faster without tests in it."""
    n, c, *loops = sch.get_loops(planes)
    if extent(sch, loops[rank - 1]) > 1:
        sch.annotate(loops[-1], "pragma_loop_partition_hint", 1)
    parallelize(sch, [n, c], knobs)


def _pack(sch: s_tir.Schedule, panel: Block, knobs: Knobs, target: Target, rank: int) -> Loop:
    """Copy patches row by row; return the loop over input channels."""
    loops = sch.get_loops(panel)
    points, cols = extent(sch, loops[-1]), knobs["cols"]
    row, col = sch.split(loops[-1], [None, cols])
    if points % cols:
        sch.annotate(row, "pragma_loop_partition_hint", 1)
    _copy(sch, col, cols, target, whole=True)
    return loops[-2 - rank]
