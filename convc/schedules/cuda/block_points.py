"""THE SCHEDULE of `depthwise_blocked`: each thread has a column of a few results, and all channels of a block, in its registers.

for n, block, tile of rows, q (grid and threads, neighbours along q):
    acc[rows, 8] = 0
    for rows of taps, or all at once if `held`:
        window = x[...]         16 bytes a load; zeros outside
        filter = w[...]
        for taps: acc += filter window
    y[rows, 8] = epilogue(acc)      16 bytes a store
"""

from __future__ import annotations

from tvm import tirx

from convc.schedules.cuda.adding import vectorize_store
from convc.schedules.cuda.product import inline_all_but
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc scheduled; knobs: `rows` of a thread, `held`, `threads` of a block."""
    sch = begin(func)
    out = inline_all_but(sch, ("window", "acc"))
    acc, window = sch.get_sblock("acc"), sch.get_sblock("window")
    weight = sch.cache_read(acc, 1, "local")
    store = sch.cache_write(out, 0, "local")
    *outer, row, q, lane = sch.get_loops(store)
    tile, inner = sch.split(row, [None, knobs["rows"]])
    sch.reorder(*outer, tile, q, inner, lane)
    block, thread = sch.split(sch.fuse(*outer, tile, q), [None, knobs["threads"]])
    sch.bind(block, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    sch.unroll(inner)
    vectorize_store(sch, store, lane)
    at = thread
    for stage in (out, acc, window, weight):
        sch.compute_at(stage, at, preserve_unit_loops=True)
        if stage in (acc, window):
            sch.set_scope(stage, 0, "local")
        own = sch.get_loops(stage)[-len(sch.get(stage).iter_vars) :]
        if stage is acc and not knobs["held"]:
            *rows, last = own[len(own) // 2 + 1 :]
            sch.reorder(*rows, *own[: len(own) // 2 + 1], last)
            at = rows[-1]
            own = [*own[: len(own) // 2 + 1], last]
        for loop in own[:-1]:
            sch.unroll(loop)
        sch.vectorize(own[-1]) if stage in (window, weight) else sch.unroll(own[-1])
    return sch.mod["main"]
