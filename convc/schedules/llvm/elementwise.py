"""The schedule that takes anything: inline what is elementwise, vectorise the contiguous axis, run the rest in parallel.

Rewrite:
    a[i, j] = f(x[i, j]);  b[i, j] = g(a[i, j])
    -->
    for ij.0 (parallel): for ij.1 (vector): b[...] = g(f(x[...]))
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx

from convc.schedules.llvm.tiling import blocks_of
from convc.target import Target

__all__ = ["schedule"]

# A parallel launch costs 3 us with two threads; below this many elements one thread is done sooner.
_PARALLEL_ELEMENTS = 16 << 10


def schedule(func: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """Return any PrimFunc made from tensor expressions, scheduled."""
    sch = s_tir.Schedule(func)
    _inline_producers(sch)
    for block in blocks_of(sch):
        _schedule_block(sch, block, target)
    return sch.mod["main"]


def _inline_producers(sch: s_tir.Schedule) -> None:
    """Inline every block without a reduction into its consumers, but for the one that writes the result."""
    results = {sch.get(b).name_hint for b in sch.get_output_blocks(sch.get_sblock("root"))}
    for block in blocks_of(sch):
        info = sch.get(block)
        reduces = any(v.iter_type == tirx.IterVar.CommReduce for v in info.iter_vars)
        if reduces or info.name_hint in results:
            continue
        sch.compute_inline(block)


def _schedule_block(sch: s_tir.Schedule, block: Any, target: Target) -> None:
    info = sch.get(block)
    loops = sch.get_loops(block)
    if not loops:  # a single element
        return
    kinds = [v.iter_type for v in info.iter_vars]
    spatial = [x for x, k in zip(loops, kinds, strict=True) if k == tirx.IterVar.DataPar]
    reduced = [x for x, k in zip(loops, kinds, strict=True) if k == tirx.IterVar.CommReduce]
    total = 1
    for loop in spatial:
        total *= int(sch.get(loop).extent)
    if not spatial:
        return
    if reduced:
        _schedule_reduction(sch, block, spatial, reduced, total, target)
        return
    fused = sch.fuse(*spatial) if len(spatial) > 1 else spatial[0]
    if total < target.lanes:
        return
    outer, lane = sch.split(fused, [None, target.lanes])
    sch.vectorize(lane)
    if total >= _PARALLEL_ELEMENTS:
        sch.parallel(outer)


def _schedule_reduction(
    sch: s_tir.Schedule, block: Any, spatial: list, reduced: list, total: int, target: Target
) -> None:
    """Vectorise the last spatial axis inside the reduction when it is whole vectors; otherwise reduce one element at a time."""
    *outer, last = spatial
    extent = int(sch.get(last).extent)
    work = total
    for loop in reduced:
        work *= int(sch.get(loop).extent)
    if extent % target.lanes == 0 or (extent == target.lanes // 2):
        lanes = min(extent, target.lanes)
        last, lane = sch.split(last, [None, lanes])
        sch.reorder(*outer, last, *reduced, lane)
        sch.vectorize(lane)
    axes = [*outer, last]
    fused = sch.fuse(*axes) if len(axes) > 1 else axes[0]
    if work >= _PARALLEL_ELEMENTS:
        sch.parallel(fused)
    sch.decompose_reduction(block, reduced[0])
