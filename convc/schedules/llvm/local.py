"""THE SCHEDULE of `schedules.local`: output points outside, on all threads, each with its windows in L1 and its filters read once.

forward                                  filters                              data
for row of points (parallel):            for row of points (parallel):        for point (parallel):
    patch = windows of all images            patch = windows of all images        for a few k, vector of l:
    for tile of k, point, tile of n:         for k, point, vector of l, n:            for k, n (unrolled): spread += dy * w
        part = sums over vectors of l            dw += dy * patch             for n, c (parallel), h: dx = sum of the spreads
        y = the lanes' sum
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tvm import s_tir, tirx

from convc.schedules.divisors import greatest_divisor
from convc.schedules.llvm.tiling import (
    accumulate,
    blocks_of,
    extent,
    fused,
    parallelize,
    split_tail,
)
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["SCHEDULES"]

# Accumulators of a tile: 16 chains of FMAs hide their latency, and leave registers for the operands.
_IMAGES, _FILTERS, _ALONE = 4, 4, 8

# Vectors of images whose sums stay in registers over the filters.
_MOST_IMAGES: Final = 8


def _rows(points: Sequence[Any], knobs: Knobs) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the loops over the points that threads share, and the one over a row: its filters lie one behind the other in memory.

    By single points a batch of one wrote its filters' gradient at 3.8 GB/s: a page of its own for each of 32 filters.
    """
    return (points[:-1], points[-1:]) if knobs["rows"] else (points, ())


def _share_padding(sch: s_tir.Schedule, knobs: Knobs) -> None:
    """Share out the copy with zeros around, which is there if the convolution has any."""
    for block in blocks_of(sch):
        if sch.get(block).name_hint == "pad":
            parallelize(sch, sch.get_loops(block)[:2], knobs)


def schedule_forward(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.local.forward` scheduled."""
    sch = s_tir.Schedule(func)
    names = [sch.get(b).name_hint for b in blocks_of(sch)]
    part, patch, out = (sch.get_sblock(name) for name in ("part", "patch", "local"))
    n, k, *points = sch.get_loops(out)
    images = greatest_divisor(extent(sch, n), _IMAGES)
    filters = greatest_divisor(knobs["filters"], _FILTERS if images > 1 else _ALONE)
    no, ni = sch.split(n, [None, images])
    ko, ki = sch.split(k, [None, filters])
    outer, row = _rows(points, knobs)
    sch.reorder(*outer, ko, *row, no, ki, ni)
    for name in reversed([n for n in names if n.startswith("half")]):
        half = sch.get_sblock(name)
        sch.compute_at(half, no, preserve_unit_loops=True)
        sch.set_scope(half, 0, "local")
        for loop in sch.get_loops(half)[-3:-1]:
            sch.unroll(loop)
        sch.vectorize(sch.get_loops(half)[-1])
    left = None
    if "rest" in names:
        rest = sch.get_sblock("rest")
        sch.compute_at(rest, no, preserve_unit_loops=True)
        sch.set_scope(rest, 0, "local")
        *_, rn, rk, left = sch.get_loops(rest)
        sch.reorder(left, rn, rk)
        sch.unroll(rn)
        sch.unroll(rk)
    first = accumulate(sch, part, no, 1, knobs["lanes"])
    sch.unroll(ki)
    sch.unroll(ni)
    sch.compute_at(patch, outer[-1], preserve_unit_loops=True)
    _share_padding(sch, knobs)
    parallelize(sch, outer, knobs)
    sch.decompose_reduction(part, first)
    if left is not None:
        sch.decompose_reduction(sch.get_sblock("rest"), left)
    return sch.mod["main"]


def schedule_weight_gradient(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.local.weight_gradient` scheduled."""
    sch = s_tir.Schedule(func)
    names = [sch.get(b).name_hint for b in blocks_of(sch)]
    total = sch.get_sblock("sum")
    rank = (len(sch.get_loops(total)) - 3) // 2
    result = sch.get_sblock("local" if "local" in names else "sum")
    k, *rest = sch.get_loops(result)
    points, inner = rest[:rank], rest[rank : 2 * rank + 1]
    outer, row = _rows(points, knobs)
    sch.reorder(*outer, k, *row, *inner)
    if "local" in names:
        sch.compute_at(total, row[-1] if row else k, preserve_unit_loops=True)
        own = sch.get_loops(total)
        inner, n = own[-(rank + 2) : -1], own[-1]
    else:
        n = sch.get_loops(total)[-1]
    step, lane = _vectors(sch, inner, knobs)
    sch.reorder(step, n, lane)
    sch.vectorize(lane)
    sch.compute_at(sch.get_sblock("patch"), outer[-1], preserve_unit_loops=True)
    _share_padding(sch, knobs)
    parallelize(sch, outer, knobs)
    sch.decompose_reduction(total, n)
    return sch.mod["main"]


def schedule_data_gradient(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.local.data_gradient` scheduled."""
    sch = s_tir.Schedule(func)
    spread, total = sch.get_sblock("spread"), sch.get_sblock("sum")
    *spatial, k = sch.get_loops(spread)
    rank = (len(spatial) - 3) // 2
    points, (n, g), inner = spatial[:rank], spatial[rank : rank + 2], spatial[rank + 2 :]
    step, lane = _vectors(sch, inner, knobs)
    no, ni = sch.split(n, [None, greatest_divisor(extent(sch, n), _MOST_IMAGES)])
    ko, ki = sch.split(k, [None, greatest_divisor(extent(sch, k), _FILTERS)])
    sch.reorder(*points, g, no, ko, step, ki, ni, lane)
    sch.unroll(ki)
    sch.unroll(ni)
    sch.vectorize(lane)
    parallelize(sch, points, knobs)
    sch.decompose_reduction(spread, ko)
    for block in (total, *(b for b in blocks_of(sch) if sch.get(b).name_hint == "local")):
        parallelize(sch, sch.get_loops(block)[:2], knobs)
    return sch.mod["main"]


def _vectors(sch: s_tir.Schedule, inner: Sequence[Any], knobs: Knobs) -> tuple[Any, Any]:
    """Split channels and taps, which lie one behind the other, into vectors; the last one, if it is short, is code of its own."""
    length = fused(sch, inner)
    return split_tail(sch, length, extent(sch, length), knobs["lanes"])


SCHEDULES: Final = {
    "local_forward": schedule_forward,
    "local_data_gradient": schedule_data_gradient,
    "local_weight_gradient": schedule_weight_gradient,
}
