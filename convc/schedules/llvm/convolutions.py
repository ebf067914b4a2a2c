"""THE SCHEDULE of each algorithm on a CPU: which loops are tiled, vectorised, unrolled and run in parallel, and in what order.

Every function takes the PrimFunc of the algorithm of its name and returns it scheduled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tvm import s_tir, tirx

from convc.schedules.direct_data import DOT_BF16
from convc.schedules.llvm import (
    bottleneck,
    fft,
    grouped,
    im2col,
    inner_product,
    packing,
    pooled,
    weight_gradient,
    winograd,
)
from convc.schedules.llvm.clipping import skip_padding
from convc.schedules.llvm.dots import dots_inside
from convc.schedules.llvm.prefetch import fetch_ahead
from convc.schedules.llvm.tiling import (
    Block,
    Loop,
    accumulate,
    blocks_of,
    extent,
    fused,
    inline_between,
    own_loops,
    parallelize,
    reductions,
    share_rows,
    split_tail,
)
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["SCHEDULES"]

Schedule = Callable[[tirx.PrimFunc, Knobs, Target], tirx.PrimFunc]


def _extents(sch: s_tir.Schedule, loops: list) -> list[int]:
    return [int(sch.get(loop).extent) for loop in loops]


def direct(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Schedule `schedules.direct`.

    Order: batch, channel group (weights of one group stay in L2), rows, columns; inside, the register tile. 113-116 of 117
    GFLOP/s on every ResNet-50 layer, one Zen 4 core.
    """
    sch = begin(func)
    out = inline_between(sch, ("acc", "part", "single", "gathered", *pooled.STAGES))
    strips = pooled.in_strips(sch, out, knobs, "group") if pooled.is_pooled(knobs) else None
    out = sch.get_sblock("Y") if pooled.is_pooled(knobs) else out
    n, k, *slices, p, q, lane = own_loops(sch, out)
    ke, pe, qe = _extents(sch, [k, p, q])
    ko, ki = sch.split(k, [None, min(knobs["vectors"], ke)])
    parts = knobs.get("parts", 1) > 1
    around = [n, *slices]
    if parts:
        # All sums of a group of channels lie apart, and are added up behind its last part.
        sch.reorder(n, ko, *slices, p, q, ki, lane)
        sch.unroll(ki)
        sch.vectorize(lane)
        sums = sch.get_sblock("part")
        sch.compute_at(sums, ko, preserve_unit_loops=True)
        _, _, *slices, p, q, part, vectors = own_loops(sch, sums)
        ki, lane = sch.split(vectors, [None, knobs["block"]])
        around = [part, *slices]
    po, pi = split_tail(sch, p, pe, knobs["rows"])
    qo, qi = split_tail(sch, q, qe, knobs["cols"])
    chunk, po = ([], po) if strips or parts else share_rows(sch, po, knobs)
    inside = [] if parts else [ko]
    sch.reorder(*around, *chunk, *inside, po, qo, ki, pi, qi, lane)
    acc = sch.get_sblock("acc")
    first = accumulate(sch, acc, qo, reductions(sch, acc), knobs["block"])
    taps = reductions(sch, acc) - 1
    if knobs["data_block"] == 1:
        first = _taps_of_a_row_first(sch, acc)
    if knobs.get("gather"):
        *rows, _, points = sch.get_loops(sch.get_sblock("gathered"))
        sch.vectorize(points)
        parallelize(sch, rows, knobs)
    if knobs.get("stage"):
        _widen_a_tile(sch, first if taps and knobs["data_block"] > 1 else None, qo, taps)
    for loop in (ki, pi, qi):
        sch.unroll(loop)
    sch.vectorize(lane)
    shared = (
        [*around, *chunk] if chunk else [*around, ko] if pe % knobs["rows"] else [*around, ko, po]
    )
    if parts:
        shared = [n, ko]
    rows = -(-pe // knobs["rows"])
    rows = rows * extent(sch, strips.strip) if strips else rows // knobs.get("chunks", 1)
    parallelize(sch, strips.shared if strips else shared, knobs)
    sch.decompose_reduction(acc, first)
    if strips:
        strips.finish(sch)
    at = 2 + len(slices)
    tiles = {at: (knobs["rows"], rows), at + 1: (knobs["cols"], -(-qe // knobs["cols"]))}
    func = sch.mod["main"]
    if knobs.get("clip"):
        func = skip_padding(func, (*[1] * len(slices), knobs["rows"], knobs["cols"]))
    if not knobs.get("per_image"):  # such weights were written a moment ago
        func = fetch_ahead(func, "weight", tiles, target)
    return dots_inside(func, DOT_BF16) if knobs.get("pairs") else func


def _taps_of_a_row_first(sch: s_tir.Schedule, acc: Block) -> Loop:
    """Sum over a row's taps outermost; return that loop, before which the sums are zeroed.

    Innermost, LLVM unrolls it and keeps the points that taps of a row share in registers, of which then none are left for the sums:
    3x3, 3 -> 64 channels at 224 x 224, 14 x 2 register tile: 65 GFLOP/s.
    """
    loops = sch.get_loops(acc)
    begin = len(loops) - len(sch.get(acc).iter_vars) - 1  # the vectors' axis was split in two
    channels, *taps, channel = loops[begin : begin + reductions(sch, acc)]
    sch.reorder(*reversed(taps), channels, channel)
    return taps[-1]


def _widen_a_tile(sch: s_tir.Schedule, first: Loop | None, tile: Loop, taps: int) -> None:
    """Widen the data of a tile: of one tap and one block of channels where these are loops, else all that it reads.

    ResNet-50, bfloat16, one core of an Emerald Rapids: 46 ms; 65 ms with each scalar widened by itself before it is broadcast.
    """
    single = sch.get_sblock("single")
    at = tile
    if first is not None:
        loops = sch.get_loops(sch.get_sblock("acc"))
        begin = next(i for i, loop in enumerate(loops) if sch.get(loop).same_as(sch.get(first)))
        at = loops[begin + taps - 1]
    sch.compute_at(single, at, preserve_unit_loops=True)
    sch.set_scope(single, 0, "local")
    inner = own_loops(sch, single)
    sch.vectorize(inner[-1] if int(sch.get(inner[-1]).extent) > 1 else inner[-2])


def depthwise(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Schedule `schedules.depthwise`: strips of one row, all taps unrolled so that LLVM reuses the strip's loads."""
    sch = begin(func)
    out = inline_between(sch, ("acc",))
    n, k, *slices, p, q, lane = sch.get_loops(out)
    pe, qe = _extents(sch, [p, q])
    po, pi = split_tail(sch, p, pe, knobs["rows"])
    qo, qi = split_tail(sch, q, qe, knobs["cols"])
    part, po = share_rows(sch, po, knobs)
    sch.reorder(n, *part, k, *slices, po, qo, pi, qi, lane)
    acc = sch.get_sblock("acc")
    rows, taps = _extents(sch, sch.get_loops(acc)[-2:])
    # Rows of quads, too, which results of neighbouring rows share.
    unrolled = 2 if knobs.get("taps") and rows * taps <= 16 else 1 if taps <= 16 else 0
    first = accumulate(sch, acc, qo, len(slices) + 2, knobs["block"], unroll=unrolled)
    sch.unroll(pi)
    sch.unroll(qi)
    sch.vectorize(lane)
    outer = [n, k, *slices]
    shared = [n, *part] if part else outer if pe % knobs["rows"] else [*outer, po]
    parallelize(sch, shared, knobs)
    sch.decompose_reduction(acc, first)
    return sch.mod["main"]


def subpixel(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Schedule `schedules.subpixel`: the direct tile inside one phase; a tile's results are written a stride apart.

    Phases that are written apart are copied together by a second pass over the result, with the epilogue.
    """
    sch = begin(func)
    out = inline_between(sch, ("acc", "phases"))
    acc = sch.get_sblock("acc")
    apart = any(sch.get(block).name_hint == "phases" for block in blocks_of(sch))
    if apart:
        tile = sch.get_sblock("phases")
        n, k, *axes, wide = sch.get_loops(tile)
        filters, places = axes[: len(axes) // 2], axes[len(axes) // 2 :]
        ki, lane = sch.split(wide, [None, knobs["block"]])
        ko = k
        gather = sch.get_loops(out)
        sch.vectorize(gather[-1])
        parallelize(sch, gather[:-1], knobs)
    else:
        n, k, *axes, lane = sch.get_loops(out)
        filters, places = axes[1::2], axes[::2]
        ko, ki = sch.split(k, [None, min(knobs["vectors"], int(sch.get(k).extent))])
    *slices, p, q = places
    pe, qe = _extents(sch, [p, q])
    po, pi = split_tail(sch, p, pe, knobs["rows"])
    qo, qi = split_tail(sch, q, qe, knobs["cols"])
    part, po = share_rows(sch, po, knobs)
    sch.reorder(n, *part, ko, *filters, *slices, po, qo, ki, pi, qi, lane)
    first = accumulate(sch, acc, qo, reductions(sch, acc), knobs["block"])
    for loop in (ki, pi, qi):
        sch.unroll(loop)
    sch.vectorize(lane)
    parallelize(sch, [n, *part] if part else [n, ko, *filters], knobs)
    sch.decompose_reduction(acc, first)
    rows = -(-pe // knobs["rows"]) // knobs.get("chunks", 1)
    at = 2 + len(filters) + len(slices)
    tiles = {at: (knobs["rows"], rows), at + 1: (knobs["cols"], -(-qe // knobs["cols"]))}
    return fetch_ahead(sch.mod["main"], "weight", tiles, target)


def generic(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Schedule `schedules.generic`: vectors along the last axis of plain data, a few output channels to share its loads."""
    sch = begin(func)
    out = inline_between(sch, ("acc", "pad"))
    loops = sch.get_loops(out)
    n, k, *middle, q = loops
    extent = int(sch.get(q).extent)
    ko, ki = sch.split(k, [None, knobs["channels"]])
    lanes = min(target.lanes, extent)
    qo, qi = split_tail(sch, q, extent, lanes)
    sch.reorder(n, ko, *middle, qo, ki, qi)
    acc = sch.get_sblock("acc")
    sch.compute_at(acc, qo, preserve_unit_loops=True)
    sch.set_scope(acc, 0, "local")
    inner = sch.get_loops(acc)
    own = inner[len(inner) - len(sch.get(acc).iter_vars) :]
    spatial, reduced = own[: len(loops)], own[len(loops) :]
    sch.reorder(*reduced, *spatial)
    sch.vectorize(spatial[-1])
    sch.unroll(spatial[1])
    sch.unroll(ki)
    sch.vectorize(qi)
    parallelize(sch, [n, ko, *middle], knobs)
    for block in blocks_of(sch):
        if sch.get(block).name_hint == "pad":
            parallelize(sch, sch.get_loops(block)[:-1], knobs)
    sch.decompose_reduction(acc, reduced[0])
    return sch.mod["main"]


def dense(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Schedule `schedules.dense`: each thread streams its own part of the weights once for all rows of a tile, or products of a batch."""
    sch = begin(func)
    out = inline_between(sch, ("acc",))
    *batch, m, k = sch.get_loops(out)
    me, ke = _extents(sch, [m, k])
    wide = knobs["vectors"] * knobs["block"]
    mo, mi = split_tail(sch, m, me, min(knobs["rows"], me))
    ko, ki = split_tail(sch, k, ke, wide)
    outer, inner, whole = ko, mo, ke % wide == 0
    if knobs.get("rows_first"):
        outer, inner, whole = mo, ko, me % knobs["rows"] == 0
    sch.reorder(*batch, outer, inner, mi, ki)
    acc = sch.get_sblock("acc")
    first = accumulate(sch, acc, inner, 1, knobs["block"])
    vo, vi = sch.split(ki, [None, knobs["block"]])
    sch.unroll(mi)
    sch.unroll(vo)
    sch.vectorize(vi)
    # TVM fuses no loop whose last round is code of its own.
    sch.parallel(fused(sch, [*batch, outer] if whole else batch or [outer]))
    sch.decompose_reduction(acc, first)
    if batch:  # such weights were written a moment ago
        return sch.mod["main"]
    rows = min(knobs["rows"], me)
    return fetch_ahead(sch.mod["main"], "weight", {0: (rows, -(-me // rows))}, target)


SCHEDULES: Final[dict[str, Schedule]] = {
    "direct": direct,
    "depthwise": depthwise,
    "subpixel": subpixel,
    "inner_product": inner_product.schedule,
    "grouped": grouped.schedule,
    "winograd": winograd.schedule,
    "fft": fft.schedule,
    "im2col": im2col.schedule,
    "generic": generic,
    "dense": dense,
    "bottleneck": bottleneck.schedule,
    "packing": packing.schedule,
    "dense_packing": packing.schedule_dense,
    "weight_gradient_blocked": weight_gradient.schedule,
    "weight_gradient_grouped": weight_gradient.schedule_lanes,
}
