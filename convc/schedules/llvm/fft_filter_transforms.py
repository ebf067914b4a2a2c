"""THE SCHEDULE of `llvm.fft_filters`: every transform is its straight-line program, on vectors of filters.

for vector of filters, some channels (parallel):
    for channel, part of the vector:
        for row:    d gathered, S = row's transform
        for column: U = column's transform
    packed = U      a run of some cache lines of each bin

Stored where it was computed, each bin's line was one of as many as there are bins, all in one set of L1: 7.4 ms for 16 MiB.
"""

from __future__ import annotations

from tvm import s_tir, tirx

from convc.schedules.divisors import greatest_divisor
from convc.schedules.fft_transform import column_filter, row_forward
from convc.schedules.llvm.tiling import extent, own_loops, parallelize
from convc.schedules.plan import Knobs
from convc.schedules.written_out import as_program, with_programs
from convc.target import Target

__all__ = ["schedule"]

# Channels that are transformed before any is stored.
_TOGETHER = 8


def schedule(sch: s_tir.Schedule, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of filters' transforms scheduled; knobs: those of `schedules.fft`."""
    packed, U, S, d = (sch.get_sblock(name) for name in ("packed", "U", "S", "d"))
    high, wide = (extent(sch, loop) for loop in sch.get_loops(d)[-3:-1])
    # Without channels where each filter has one to itself.
    o, h, e, z, *channels, lanes = sch.get_loops(packed)
    outer = [o]
    if channels:
        of_one = 4
        for loop in (h, e, z, lanes):
            of_one *= extent(sch, loop)
        most = min(_TOGETHER, target.l2_bytes // 2 // of_one)
        some, inner = sch.split(channels[0], [None, greatest_divisor(extent(sch, channels[0]), max(1, most))])  # fmt: skip
        sch.reorder(o, some, h, e, z, inner, lanes)
        outer.append(some)
    sch.vectorize(sch.split(lanes, [None, knobs["block"]])[1])
    sch.compute_at(U, outer[-1], preserve_unit_loops=True)
    filter_, h, e, z, *channels, lane, _, _ = own_loops(sch, U)
    part, lane = sch.split(lane, [None, knobs["block"]])
    sch.reorder(filter_, *channels, part, h, e, z, lane)
    sch.blockize(e)
    sch.compute_at(S, part, preserve_unit_loops=True)
    last = len(sch.get(S).iter_vars) - 1
    *_, row = as_program(sch, S, (0, *range(3, last - 1)), (1, 2, last - 1, last))
    sch.compute_at(d, row, preserve_unit_loops=True)
    for stage in (S, d):
        sch.set_scope(stage, 0, "local")
    *_, taps, lane = own_loops(sch, d)
    # A filter's taps lie side by side.
    sch.reorder(lane, taps)
    parallelize(sch, outer, knobs)
    form = 3 if knobs["products"] == 3 else 2
    programs = {"S": row_forward(knobs["t_w"], wide), "U": column_filter(knobs["t_h"], high, form)}
    return with_programs(sch.mod["main"], programs, vectors=True)
