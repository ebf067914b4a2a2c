"""THE SCHEDULE of `schedules.winograd`: fused per block of tile rows, so that V and M never leave the L2 cache.

for batch, block of slices and tile rows (parallel when there are enough), filter (transposed):
    for part and channel block, slice, tile:    V = B_T d B           one vector of channels at a time, all factors in registers
    for group of output channels:
        for each of alpha^2, slice:             M = U V               the register tile, tiles as its points
        for vector, slice, tile:                y = epilogue(A_T M A)

With a pool behind (see `llvm.pooled`) y is a strip's, and the pool's loops stand around it.
With the knob `planes`, M of a whole block is made before any of y: for each of alpha^2, for group of output channels, slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.sym.analyzer import Analyzer

from convc.schedules.llvm import pooled
from convc.schedules.llvm.prefetch import fetch_ahead
from convc.schedules.llvm.tiling import (
    extent,
    inline_between,
    own_loops,
    share_evenly,
    tile_product,
)
from convc.schedules.llvm.update import replaced
from convc.schedules.plan import Knobs
from convc.schedules.sharing import shared_out
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]

_STAGES = ("d0", "d1", "d2", "V", "acc", "M", "y0", "y1", "y2")

_LINE = 16  # float32 elements of one cache line

Loop = Any
Block = Any


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.winograd` scheduled."""
    sch = begin(func)
    out = inline_between(sch, (*_STAGES, *pooled.STAGES))
    strips = pooled.in_strips(sch, out, knobs, "strip") if pooled.is_pooled(knobs) else None
    out = sch.get_sblock("Y") if pooled.is_pooled(knobs) else out
    d0, d1, d2, V, acc, M, y0, y1, y2 = (sch.get_sblock(name) for name in _STAGES)
    high, wide = _geometry(sch, M)
    n, k, *axes, lane = own_loops(sch, out)
    # Transposed, the result is seen by residues: each has a filter of its own, and is a block of its own.
    filters = axes[1::2] if len(axes) == 4 else []
    *depth, p, q = axes[::2] if filters else axes
    channels = int(sch.get(k).extent)
    ko, ki = sch.split(k, [None, min(knobs["vectors"], channels)])
    # No tail of its own: a test per row of results costs less than twice the code (F(5, 3) at 224: 10.5 ms against 14.0).
    po, pi, row_image = sch.split(p, [None, high.m, high.images])
    qo, qi, col_image = sch.split(q, [None, wide.m, wide.images])
    block, row = sch.split(po, [None, knobs["rows"]])
    slab, slices = [], []
    if depth:
        first, rest = sch.split(depth[0], [None, knobs["slices"]])
        slab, slices = [first], [rest]
    # Phase images share their filter: their tiles lie side by side.
    inner = [*slices, row, row_image, qo, col_image]
    sch.reorder(n, *slab, block, *filters, ko, ki, *inner, pi, qi, lane)
    at_tile, at_block = inner[-1], [block, *filters][-1]
    if strips:
        n, at_block, ko = strips.image, strips.strip, strips.group
        block = at_block
    for loop in (pi, qi):
        sch.unroll(loop)
    sch.vectorize(lane)

    # Inverse transform: y1 of a whole tile, its columns one by one; then y2 and the result row by row.
    sch.compute_at(y2, pi, preserve_unit_loops=True)
    sch.compute_at(y1, at_tile, preserve_unit_loops=True)
    _unroll_in_registers(sch, y2, order=(0, 1))
    f = _unroll_in_registers(sch, y1, order=(1, 0))
    sch.compute_at(y0, f, preserve_unit_loops=True)
    _unroll_in_registers(sch, y0, order=(1, 0))

    # Batch, filters; then output channels and planes of a group, or all output channels plane by plane; then slices.
    order = (2, 3, 4, 0, 1, 5, 6) if knobs["planes"] else (2, 3, 4, 5, 0, 1, 6)
    sch.compute_at(M, at_block if knobs["planes"] else ko, preserve_unit_loops=True)
    e, f, _, *_, groups, _, _, _ = own_loops(sch, M)
    zeroed = tile_product(sch, acc, M, knobs, order)
    sch.compute_at(V, at_block, preserve_unit_loops=True)
    split = _forward(sch, d0, d1, d2, V)
    tiles = extent(sch, split[-1])
    for stage in (V, M):
        # A tile touches alpha^2 planes at once. An odd number of cache lines from plane to plane spreads them over all 64 sets
        # of L1; whole multiples of 4096 bytes would put 36 lines into 8 ways (64 channels at 224: 326 -> 355 GFLOP/s).
        sch.storage_align(stage, 0, axis=1, factor=2 * _LINE, offset=_LINE)
    if knobs.get("parallel", 1):
        shared = [n, *slab, block]
        if shared_out(math.prod(int(sch.get(loop).extent) for loop in shared), target):
            sch.parallel(sch.fuse(*shared))
        else:
            # Too few blocks to share out: the parts of a block are shared out instead.
            share_evenly(sch, split, target)
            if knobs["planes"]:
                share_evenly(sch, [e, f, groups], target)
            share_evenly(
                sch, [ko, ki, *slices, row] if knobs["planes"] and not strips else [ko], target
            )
    sch.decompose_reduction(acc, zeroed)
    if strips:
        strips.finish(sch)
    points, slices = knobs["points"], knobs.get("slices", 1)
    passes = {6: (1, slices), 7: (points, -(-tiles // points))}
    return fetch_ahead(_own_image_alone(sch.mod["main"]), "U", passes, target)


def _own_image_alone(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return the function with the inverse transform of a phase image's tile in its place, without those of all images before it.

    Results read the tile of their own image; TVM 0.27, which bounds q % images from above only, transforms images 0 to `image`: 64 -> 128
    channels, 2 taps, at 4000 points, dilation 512, took 24.9 ms on one Zen 4 core, and takes 0.9.
    """

    def last(loop: Any) -> Any:
        if isinstance(loop.extent, tirx.IntImm):
            return loop
        image = Analyzer().simplify(loop.extent - 1)
        assert isinstance(image, tirx.Var), f"of the images before one's own; got {loop.extent}"
        return replaced(loop.body, {loop.loop_var: image})

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, last)))


@dataclass(frozen=True, slots=True)
class _Axis:
    """What `winograd_tiles.Axis` says of an axis: results of a tile, phase images."""

    m: int
    images: int


def _geometry(sch: s_tir.Schedule, M: Block) -> tuple[_Axis, _Axis]:
    """Return rows and columns as the algorithm noted them on its products."""
    numbers = [int(n) for n in sch.get(M).annotations["convc.tiles"]]
    sch.unannotate(M, "convc.tiles")
    return _Axis(*numbers[:2]), _Axis(*numbers[2:])


def _unroll_in_registers(sch: s_tir.Schedule, stage: Block, order: tuple[int, int]) -> Loop:
    """Keep a transform's stage in registers: unroll its two tile axes in this order; return the outer one."""
    *outer, a, b, lane = own_loops(sch, stage)
    axes = ((a, b)[order[0]], (a, b)[order[1]])
    sch.reorder(*outer, *axes, lane)
    for loop in axes:
        sch.unroll(loop)
    sch.vectorize(lane)
    sch.set_scope(stage, 0, "local")
    return axes[0]


def _forward(sch: s_tir.Schedule, d0: Block, d1: Block, d2: Block, V: Block) -> list[Loop]:
    """Schedule the forward transform tile by tile, and return the loops over channel blocks, slices and tiles."""
    e, f, n, *filters, c, slab, slice, tile, lane = own_loops(sch, V)
    sch.reorder(n, *filters, c, slab, slice, tile, e, f, lane)
    sch.unroll(e)
    sch.unroll(f)
    sch.vectorize(lane)
    sch.compute_at(d2, e, preserve_unit_loops=True)
    sch.compute_at(d1, tile, preserve_unit_loops=True)
    _unroll_in_registers(sch, d2, order=(0, 1))
    column = _unroll_in_registers(sch, d1, order=(1, 0))
    sch.compute_at(d0, column, preserve_unit_loops=True)
    _unroll_in_registers(sch, d0, order=(1, 0))
    return [c, slab, slice, tile]
