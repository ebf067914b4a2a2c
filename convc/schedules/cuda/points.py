"""THE SCHEDULE of convolutions whose sums are short: each thread adds up a few results of one column, in registers.

for n, k, tile of rows, q (grid and threads, neighbours along q):
    for taps and channels:      acc[rows] += w x        data shared by the rows of a tile is loaded once
    y[rows] = epilogue(acc)
"""

from __future__ import annotations

import math

from tvm import tirx

from convc.schedules.cuda.product import inline_all_but
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]

# Up to this many terms the sum is written out.
_UNROLLED = 64


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.generic` scheduled; knobs: `rows` of a thread, `threads` of a block."""
    sch = begin(func)
    out = inline_all_but(sch, ("acc",))
    loops = list(sch.get_loops(out))
    inner = None
    if knobs["rows"] > 1:
        loops[-2], inner = sch.split(loops[-2], [None, knobs["rows"]])
        sch.reorder(*loops, inner)
    fused = sch.fuse(*loops)
    block, thread = sch.split(fused, [None, knobs["threads"]])
    sch.bind(block, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    if inner is not None:
        sch.unroll(inner)
    acc = sch.get_sblock("acc")
    sch.compute_at(acc, thread, preserve_unit_loops=True)
    sch.set_scope(acc, 0, "local")
    own = sch.get_loops(acc)[-len(sch.get(acc).iter_vars) :]
    spatial, reduced = own[: len(loops)], own[len(loops) :]
    sch.reorder(*reduced, *spatial)
    sch.unroll(spatial[-2] if len(spatial) > 3 else spatial[-1])
    if math.prod(int(sch.get(loop).extent) for loop in reduced) <= _UNROLLED:
        for loop in reduced:
            sch.unroll(loop)
    # The zero stays inside the sum, tested for its first term: an index of a fused loop is no affine map to TVM, which then refuses to move
    # it. Of unrolled sums nvcc removes the test.
    return sch.mod["main"]
