"""THE SCHEDULE of `schedules.group_norm`: a chunk's sum and squares together, while it is in L1; then the result, in vectors.

Rewrite:
    sum = ...;  squares = ...;  group_sum = ...;  shift = ...;  y = (x - shift) * factor + bias
    -->
    for n, block, chunk (parallel): sum = ...; squares = ...
    group_sum = ...; group_squares = ...; shift = ...; factor = ...
    for n, block, row (parallel): for point: for lane (vector): y = ...
"""

from __future__ import annotations

from tvm import s_tir, tirx

from convc.schedules.group_norm import STAGES
from convc.schedules.llvm.tiling import (
    Block,
    Loop,
    extent,
    inline_between,
    own_loops,
    parallelize,
    reductions,
)
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `group_norm.compute` scheduled; knobs `parallel` and `lanes`."""
    sch = begin(func)
    out = inline_between(sch, STAGES)
    total, squares = sch.get_sblock("sum"), sch.get_sblock("squares")
    n, c, chunk, *_ = sch.get_loops(total)
    first = _summed(sch, total)
    # Backwards, since the groups' stages read the sums, too.
    sch.reverse_compute_at(squares, chunk, preserve_unit_loops=True)
    firsts = [(total, first), (squares, _summed(sch, squares))]
    parallelize(sch, [n, c, chunk], knobs)
    for name in ("plane_sum", "plane_squares"):
        stage = sch.get_sblock(name)
        n, c, side, lane, chunk = sch.get_loops(stage)
        sch.reorder(n, c, chunk, side, lane)
        sch.vectorize(lane)
        parallelize(sch, [n, c], knobs)
        firsts.append((stage, chunk))
    *outer, last = sch.get_loops(out)
    width = extent(sch, last)
    lanes = next(v for v in (knobs["lanes"], 8, 4, 2, 1) if width % v == 0)
    sch.vectorize(sch.split(last, [None, lanes])[1])
    parallelize(sch, outer[:3], knobs)
    for block, loop in firsts:
        sch.decompose_reduction(block, loop)
    return sch.mod["main"]


def _summed(sch: s_tir.Schedule, block: Block) -> Loop:
    """Sum vectors, a few chains side by side; return the first loop of the sum."""
    count = reductions(sch, block)
    own = own_loops(sch, block)
    side, lane = own[-count - 2], own[-count - 1]
    reduced = own[-count:]
    sch.reorder(*reduced, side, lane)
    sch.unroll(side)
    sch.vectorize(lane)
    return reduced[0]
