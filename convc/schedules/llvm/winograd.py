"""THE SCHEDULE of `schedules.winograd`: fused per block of tile rows, so that V and M never leave the L2 cache.

for batch, block of tile rows (parallel when there are enough):
for channel block, tile:      V = B_T d B           one vector of channels at a time, all factors in registers
for group of output channels:
for each of alpha^2:      M = U V             the register tile, tiles as its points
for vector, tile:         y = epilogue(A_T M A)
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx

from convc.schedules.llvm.prefetch import fetch_ahead
from convc.schedules.llvm.tiling import accumulate, inline_between, split_tail
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["schedule"]

_STAGES = ("d0", "d1", "d2", "V", "acc", "M", "y0", "y1", "y2")

_LINE = 16  # float32 elements of one cache line

Loop = Any
Block = Any


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.winograd` scheduled."""
    sch = s_tir.Schedule(func)
    out = inline_between(sch, _STAGES)
    d0, d1, d2, V, acc, M, y0, y1, y2 = (sch.get_sblock(name) for name in _STAGES)
    m_h, m_w = _tile_size(sch, V, y1, out)
    n, k, p, q, lane = sch.get_loops(out)
    channels, height = (int(sch.get(loop).extent) for loop in (k, p))
    ko, ki = sch.split(k, [None, min(knobs["vectors"], channels)])
    po, pi = sch.split(p, [None, m_h])
    # No tail of its own: a test per row of results costs less than twice the code (F(5, 3) at 224: 10.5 ms against 14.0).
    qo, qi = sch.split(q, [None, m_w])
    block, row = sch.split(po, [None, knobs["rows"]])
    sch.reorder(n, block, ko, ki, row, qo, pi, qi, lane)
    for loop in (pi, qi):
        sch.unroll(loop)
    sch.vectorize(lane)

    # Inverse transform: y1 of a whole tile, its columns one by one; then y2 and the result row by row.
    sch.compute_at(y2, pi, preserve_unit_loops=True)
    sch.compute_at(y1, qo, preserve_unit_loops=True)
    _unroll_in_registers(sch, y2, order=(0, 1))
    f = _unroll_in_registers(sch, y1, order=(1, 0))
    sch.compute_at(y0, f, preserve_unit_loops=True)
    _unroll_in_registers(sch, y0, order=(1, 0))

    sch.compute_at(M, ko, preserve_unit_loops=True)
    first = _product(sch, acc, M, knobs)
    sch.compute_at(V, block, preserve_unit_loops=True)
    split = _forward(sch, d0, d1, d2, V)
    for stage in (V, M):
        # A tile touches alpha^2 planes at once. An odd number of cache lines from plane to plane spreads them over all 64 sets
        # of L1; whole multiples of 4096 bytes would put 36 lines into 8 ways (64 channels at 224: 326 -> 355 GFLOP/s).
        sch.storage_align(stage, 0, axis=1, factor=2 * _LINE, offset=_LINE)
    blocks = -(-height // (m_h * knobs["rows"]))
    if knobs.get("parallel", 1):
        if blocks >= 2 * target.cores:
            sch.parallel(sch.fuse(n, block))
        else:
            # Too few blocks to share out: both halves of a block are shared out instead.
            sch.parallel(split)
            sch.parallel(ko)
    sch.decompose_reduction(acc, first)
    tiles = int(sch.get(_own(sch, V)[4]).extent)
    return fetch_ahead(
        sch.mod["main"], "U", {4: (knobs["points"], -(-tiles // knobs["points"]))}, target
    )


def _tile_size(sch: s_tir.Schedule, V: Block, y1: Block, out: Block) -> tuple[int, int]:
    """Return (m of rows, m of columns), read off the stages' extents."""
    m_h = int(sch.get(sch.get_loops(y1)[3]).extent)
    tiles = int(sch.get(sch.get_loops(V)[4]).extent)
    height, width = (int(sch.get(loop).extent) for loop in sch.get_loops(out)[2:4])
    cols = tiles // -(-height // m_h)
    return m_h, -(-width // cols)


def _own(sch: s_tir.Schedule, block: Block) -> list[Loop]:
    """Return the loops of the block's own axes, innermost last."""
    loops = sch.get_loops(block)
    return list(loops[len(loops) - len(sch.get(block).iter_vars) :])


def _unroll_in_registers(sch: s_tir.Schedule, stage: Block, order: tuple[int, int]) -> Loop:
    """Keep a transform's stage in registers: unroll its two tile axes in this order; return the outer one."""
    *outer, a, b, lane = _own(sch, stage)
    axes = ((a, b)[order[0]], (a, b)[order[1]])
    sch.reorder(*outer, *axes, lane)
    for loop in axes:
        sch.unroll(loop)
    sch.vectorize(lane)
    sch.set_scope(stage, 0, "local")
    return axes[0]


def _forward(sch: s_tir.Schedule, d0: Block, d1: Block, d2: Block, V: Block) -> Loop:
    """Schedule the forward transform tile by tile, and return the loop over channel blocks."""
    e, f, n, c, tile, lane = _own(sch, V)
    sch.reorder(n, c, tile, e, f, lane)
    sch.unroll(e)
    sch.unroll(f)
    sch.vectorize(lane)
    sch.compute_at(d2, e, preserve_unit_loops=True)
    sch.compute_at(d1, tile, preserve_unit_loops=True)
    _unroll_in_registers(sch, d2, order=(0, 1))
    column = _unroll_in_registers(sch, d1, order=(1, 0))
    sch.compute_at(d0, column, preserve_unit_loops=True)
    _unroll_in_registers(sch, d0, order=(1, 0))
    return c


def _product(sch: s_tir.Schedule, acc: Block, M: Block, knobs: Knobs) -> Loop:
    """Schedule the alpha^2 matrix products by the register tile, and return the first reduction loop."""
    e, f, n, o, tiles, lane = _own(sch, M)
    sch.reorder(n, o, e, f, tiles, lane)
    count = int(sch.get(tiles).extent)
    po, pi = split_tail(sch, tiles, count, min(knobs["points"], count))
    vector, lanes = sch.split(lane, [None, knobs["block"]])
    first = accumulate(sch, acc, po, 2, knobs["block"])
    sch.unroll(pi)
    sch.unroll(vector)
    sch.vectorize(lanes)
    return first
