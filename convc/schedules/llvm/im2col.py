"""THE SCHEDULE of `schedules.im2col`: a panel is packed once, stays in L2, and every tile of output channels runs over it.

planes of the data (or, with many groups, of one group at a time)
for batch, group, block of pixels (parallel):
    panel = patches of the block                 runs of a row, copied as long vectors
    for tile of channels, tile of pixels:        tile = w panel      the register tile
    for channel, row of pixels:                  result = epilogue(tile)
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx

from convc.schedules.llvm.tiling import accumulate, blocks_of, inline_between, split_tail
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["schedule"]

Loop = Any
Block = Any

# A row of up to this many pixels is copied as one vector: LLVM makes whole and part registers of it, with no loop and no test.
_LONGEST_VECTOR = 64


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.im2col` scheduled."""
    sch = s_tir.Schedule(func)
    stages = ("planes", "panel", "acc", "tile") if knobs["panel"] else ("planes", "acc", "tile")
    out = inline_between(sch, stages)
    named = {sch.get(block).name_hint: block for block in blocks_of(sch)}
    acc, tile = named["acc"], named["tile"]
    n, k, *spatial = sch.get_loops(out)
    g, k = sch.split(k, [_extent(sch, sch.get_loops(tile)[1]), None])
    # A row of one dimension, and a slice of three, is a block of its own.
    sizes = [1, 1, knobs["rows"], knobs["cols"]][-len(spatial) :]
    cuts = [sch.split(p, [None, size]) for p, size in zip(spatial, sizes, strict=True)]
    blocks, (*rows, cols) = [outer for outer, _ in cuts], [inner for _, inner in cuts]
    width = _extent(sch, spatial[-1]) if not cuts else knobs["cols"]
    sch.reorder(n, g, *blocks, k, *rows, cols)
    _copy(sch, cols, knobs["cols"], target, tail=_extent(sch, cols) != width)
    at = blocks[-1]
    sch.compute_at(tile, at, preserve_unit_loops=True)
    first = _product(sch, acc, tile, knobs)
    if "panel" in named:
        sch.compute_at(named["panel"], at, preserve_unit_loops=True)
        _pack(sch, named["panel"], knobs)
    if knobs.get("parallel", 1):
        sch.parallel(sch.fuse(n, g, *blocks))
        if "planes" in named:
            sch.parallel(sch.fuse(*sch.get_loops(named["planes"])[:2]))
    sch.decompose_reduction(acc, first)
    return sch.mod["main"]
