"""THE SCHEDULE of `schedules.grid_points`: places and shares of a tile of points, then the tile of one vector of channels after another.

Rewrite:
    columns = ...;  place0 = ...;  share0 = ...;  read[p, c] = columns[place0[p], c] * share0[p];  y[c, p] = read[p, c]
    -->
    columns = ...
    for n, tile of points (parallel):
        place0 = ... (vector of points);  share0 = ...
        for vector of channels:
            read = ... (vector of channels);  y = read (vector of points)
"""

from __future__ import annotations

from tvm import s_tir, tirx

from convc.schedules.grid_points import points_of, vector_of
from convc.schedules.llvm.tiling import blocks_of, extent, fused, own_loops, parallelize
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `grid_points.compute` scheduled; knob `parallel`."""
    sch = begin(func)
    *places, read, out = blocks_of(sch)
    columns = next(b for b in places if sch.get(b).name_hint == "columns")
    parallelize(sch, sch.get_loops(columns)[:2], knobs)
    n, c, *area = sch.get_loops(out)
    points = points_of(tuple(extent(sch, loop) for loop in area))
    tile, point = sch.split(fused(sch, area), [None, points])
    vector, lane = sch.split(c, [None, vector_of(extent(sch, c))])
    sch.reorder(n, tile, vector, lane, point)
    sch.vectorize(point)
    _local(sch, read, vector)
    sch.vectorize(own_loops(sch, read)[-1])
    for block in places:
        if sch.get(block).name_hint == "columns":
            continue
        _local(sch, block, tile)
        sch.vectorize(own_loops(sch, block)[-1])
    parallelize(sch, [n, tile], knobs)
    return sch.mod["main"]


def _local(sch: s_tir.Schedule, block: object, loop: object) -> None:
    sch.compute_at(block, loop, preserve_unit_loops=True)
    sch.set_scope(block, 0, "local")
