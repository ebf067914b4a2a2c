"""THE SCHEDULE of `schedules.row_sums`: a row's vectors in a register, rows one after the other, on all threads.

Rewrite:
    sum[i, lane] = ...;  row_sum[i] = sum[i, 0] + sum[i, 1] + ...
    -->
    for i (parallel): for step: for lane (vector): sum[lane] += ...;  row_sum[i] = sum[0] + sum[1] + ...
"""

from __future__ import annotations

from tvm import tirx

from convc.schedules.llvm import elementwise
from convc.schedules.llvm.tiling import blocks_of, own_loops, parallelize
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `row_sums.compute` scheduled; knob `parallel`. What has no rows, any schedule takes."""
    sch = begin(func)
    sums, out = blocks_of(sch)[0], blocks_of(sch)[-1]
    if sch.get(out).name_hint != "row_sum":
        return elementwise.schedule(func, target)
    rows = sch.get_loops(out)
    sch.compute_at(sums, rows[-1], preserve_unit_loops=True)
    sch.set_scope(sums, 0, "local")
    lane, step = own_loops(sch, sums)[-2:]
    sch.reorder(step, lane)
    sch.vectorize(lane)
    parallelize(sch, rows, knobs)
    sch.decompose_reduction(sums, step)
    return sch.mod["main"]
