"""THE SCHEDULE of Winograd convolution on a device: a thread for each tile of a transform, the products between by `warps`.

kernel 1    for c, t (threads, neighbours along t):       d, d0, d1, d2 in registers;  V[e, f, c, t] = ...
kernel 2    M = U V                                       `warps.warp_product`, a plane for each blockIdx.z
kernel 3    for n, k, tile (threads, neighbours along q): y0, y1, y2 in registers;  y = epilogue(...), m x m results a thread
"""

from __future__ import annotations

from typing import Final

from tvm import s_tir, tirx

from convc.schedules.cuda.product import Block, Loop, inline_all_but
from convc.schedules.cuda.warps import warp_product
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]

_THREADS: Final = 128


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `cuda.winograd` scheduled; knobs: `m`, and those of `warps.warp_product`."""
    sch = begin(func)
    data, results = ("d", "d0", "d1", "d2"), ("y0", "y1", "y2")
    out = inline_all_but(sch, (*data, "V", "patch", "acc", "flat", *results))
    V = sch.get_sblock("V")
    e, f, c, t = sch.get_loops(V)
    sch.reorder(c, t, e, f)
    thread = _threads(sch, c, t)
    for loop in (e, f):
        sch.unroll(loop)
    _in_registers(sch, data, thread)
    n, k, p, q = sch.get_loops(out)
    high, wide = (int(x) for x in sch.get(sch.get_sblock("y2")).annotations["convc.tile"])
    p, i = sch.split(p, [None, high])
    q, j = sch.split(q, [None, wide])
    sch.reorder(n, k, p, q, i, j)
    thread = _threads(sch, n, k, p, q)
    _in_registers(sch, results, thread)
    sch.unroll(i)
    sch.unroll(j)
    warp_product(sch, knobs, None)
    return sch.mod["main"]


def _threads(sch: s_tir.Schedule, *loops: Loop) -> Loop:
    block, thread = sch.split(sch.fuse(*loops), [None, _THREADS])
    sch.bind(block, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    return thread


def _in_registers(sch: s_tir.Schedule, names: tuple[str, ...], thread: Loop) -> None:
    """Let a thread compute what it needs of the named blocks, each from the one before."""
    for name in reversed(names):
        block: Block = sch.get_sblock(name)
        sch.set_scope(block, 0, "local")
        sch.compute_at(block, thread, preserve_unit_loops=True)
        for loop in sch.get_loops(block)[-2:]:
            sch.unroll(loop)
