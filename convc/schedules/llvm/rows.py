"""THE SCHEDULE of `schedules.softmax` and `schedules.layer_norm`: a row, or a vector of neighbouring rows, at a time.

Its stages are scratch of the row's length.

Rewrite:
    greatest = ...;  exp = ...;  sum = ...;  softmax[i, j] = exp * total
    -->
    for i (parallel): greatest = ...; exp = ...; sum = ...;  for j (vector): softmax[i, j] = exp * total
"""

from __future__ import annotations

from tvm import s_tir, tirx

from convc.schedules.llvm.tiling import Loop, blocks_of, extent, own_loops, parallelize, split_tail
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `softmax.compute` or `layer_norm.compute` scheduled; knobs `axis`, `lanes` and `parallel`."""
    sch = begin(func)
    *stages, out = blocks_of(sch)
    loops = sch.get_loops(out)
    axis, lanes = knobs["axis"], knobs["lanes"]
    across = axis != len(loops) - 1
    if across:
        along, last = loops[axis], loops[-1]
        last, lane = split_tail(sch, last, extent(sch, last), lanes)
        shared = [*loops[:axis], *loops[axis + 1 : -1]]
        rows = [*shared, last]
        sch.reorder(*rows, along, lane)
        sch.vectorize(lane)
    else:
        shared = rows = loops[:-1] or [sch.add_unit_loop(loops[0])]
        _in_vectors(sch, loops[-1], lanes)
    for stage in reversed(stages):
        sch.compute_at(stage, rows[-1], preserve_unit_loops=True)
        sch.set_scope(stage, 0, "local")
        reduces = any(v.iter_type == tirx.IterVar.CommReduce for v in sch.get(stage).iter_vars)
        own = own_loops(sch, stage)
        if reduces:
            sch.reorder(own[-1], own[-2])
            sch.vectorize(own[-2])
        elif across or sch.get(stage).name_hint in ("padded", "exp"):
            _in_vectors(sch, own[-1], lanes)
    if shared:  # TVM fuses no loop whose last round is code of its own
        parallelize(sch, shared, knobs)
    for stage in stages:
        if any(v.iter_type == tirx.IterVar.CommReduce for v in sch.get(stage).iter_vars):
            sch.decompose_reduction(stage, sch.get_loops(stage)[-2])
    return sch.mod["main"]


def _in_vectors(sch: s_tir.Schedule, loop: Loop, lanes: int) -> None:
    """Run a loop in vectors; what is left of it, if anything, one element at a time."""
    length = extent(sch, loop)
    if length < lanes:
        return
    sch.vectorize(split_tail(sch, loop, length, lanes)[1])
